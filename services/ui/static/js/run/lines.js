// Lines and marks of a chart from the points of runs.
import { placed } from "./axes.js";
import { smoothed } from "./points.js";

export const FEW = 12; // points that are drawn as such, with the line

/**
 * One line for each metric of a run, through its stages one after another.
 * @param {{run: any, points: any, stages: string[], mode: string, logX: boolean, logY: boolean, smooth: number,
 *   pick: (stage: string) => any[], color: (metric: any) => string, name?: string, short: (stage: string) => string}} of
 *   `pick` gives the metrics that are drawn of a stage
 */
export function linesOf(of) {
  const { run, points, stages, mode, logX, logY, smooth, pick, color, name } = of;
  const shown = stages.filter((stage) => points.series.some((s) => s.stage === stage && s.points.length));
  const place = placed({ run, mode, stages: shown, series: points.series });
  const lines = new Map();
  const marks = [];
  for (const stage of shown) {
    if (place.unknown.includes(stage)) continue;
    for (const metric of pick(stage)) {
      const series = points.of(stage, metric.key);
      if (!series) continue;
      const line = lines.get(metric.key) ?? begin(metric, color(metric), name, run.id);
      lines.set(metric.key, line);
      const drawn = points.drawn(series);
      extend(line, drawn, (p) => place.at(stage, p.step, p.t), { logX, logY, smooth: metric.plot === "validation" ? 0 : smooth });
      for (const p of drawn) {
        if (p.nonfinite) marks.push({ x: place.at(stage, p.step, p.t), kind: "nonfinite", text: `${metric.title} is not finite by step ${p.step}` });
      }
    }
    if (shown.length > 1 && place.starts.has(stage)) marks.push({ x: place.starts.get(stage), kind: "stage", text: of.short(stage) });
    for (const gap of points.series.find((s) => s.stage === stage).gaps) {
      marks.push({ x: place.at(stage, gap.step, gap.t), kind: "resume", text: `attempt ${gap.attempt} resumed from step ${gap.step}` });
    }
  }
  for (const line of lines.values()) finish(line);
  return { lines: [...lines.values()], marks: marks.filter((m) => Number.isFinite(m.x) && (!logX || m.x > 0)), place };
}

function begin(metric, color, name, run) {
  return {
    id: `${run} ${metric.key}`, label: name ? `${name} · ${metric.short || metric.title}` : metric.title, color, axis: metric.unit || metric.title, metric,
    x: [], y: [], raw: [], min: [], max: [], breaks: [], dash: Boolean(name) && metric.plot === "validation", count: 0, nonfinite: 0,
  };
}

function extend(line, points, at, { logX, logY, smooth }) {
  const drawable = (y) => (y === null || (logY && y <= 0) ? null : y);
  const ys = points.map((p) => drawable(p.last));
  const soft = smooth > 0 && points.length > FEW ? smoothed(ys, smooth, points.map((p) => p.share ?? 1)) : null;
  if (soft) line.soft = true;
  let last = line.x.at(-1) ?? -Infinity;
  const before = line.x.at(-1);
  const first = line.x.length;
  points.forEach((p, i) => {
    const x = at(p);
    line.count++;
    line.nonfinite += p.nonfinite ? 1 : 0;
    if (!(x > last) || (logX && x <= 0)) return; // an axis grows; a logarithm has no zero
    last = x;
    line.x.push(x);
    line.y.push(soft ? soft[i] : ys[i]);
    line.raw.push(ys[i]);
    line.min.push(drawable(p.min));
    line.max.push(drawable(p.max));
  });
  if (first && line.x.length > first) line.breaks.push([before, line.x[first]]); // a stage ends, another begins
}

/** Leave out what shows nothing more. */
function finish(line) {
  const spread = line.min.some((low, i) => low !== line.max[i]);
  if (!spread) line.min = line.max = null;
  if (!line.soft) line.raw = null;
  line.points = line.metric.plot === "validation" || line.y.filter((y) => y !== null).length <= FEW;
}

/** Marks of what the events tell: checkpoints and evaluations. */
export function eventMarks(events, place, stages, logX) {
  const marks = [];
  for (const { kind, stage, t, data } of events) {
    if (!stages.includes(stage) || place.unknown.includes(stage) || !place.starts.has(stage) || typeof data.step !== "number") continue;
    const x = place.at(stage, data.step, t);
    if (!Number.isFinite(x) || (logX && x <= 0)) continue;
    if (kind === "checkpoint" && !data.final) marks.push({ x, kind, text: `checkpoint of step ${data.step}` });
    if (kind === "checkpoint" && data.final) marks.push({ x, kind, text: `final checkpoint, step ${data.step}` });
    if (kind === "eval") marks.push({ x, kind, text: `evaluation ${data.name}, step ${data.step}` });
  }
  return marks;
}

/** Why nothing is drawn, in words. */
export function nothing(points, lines, place, what, short) {
  if (points.wrong && !points.series.length) return `The points could not be read: ${points.wrong}`;
  if (!points.loaded && !points.series.length) return "Reading the points …";
  if (lines.some((line) => line.count && line.nonfinite === line.count)) return `All values of ${what} so far are NaN or infinite. The loss diverged: lower the learning rate, or look at the data of the first steps.`;
  if (place?.unknown.length) return `How many of these a step takes is not known for ${place.unknown.map(short).join(", ")}. Choose another x axis.`;
  return "No points yet. They appear here as soon as training reports its first step.";
}
