// The tab of small plots. They show the same part of the x axis as the large curve.
import { Chart } from "../../chart/chart.js";
import { fill, h, say } from "../../dom.js";
import { AXES } from "../axes.js";
import { shared } from "../curves.js";
import { Finer } from "../finer.js";
import { hardware } from "../hardware.js";
import { linesOf, nothing } from "../lines.js";
import { Points } from "../points.js";

const BUCKETS = 600;
const DRAW_MS = 700;
const PLOTS = [
  { keys: ["tok_per_s", "rollout_tok_per_s"] },
  { keys: ["mfu"], none: "MFU is left out: the peak of this processor is not known." },
  { keys: ["data_wait_pct", "sampling_pct"] },
  { keys: ["grad_norm"] },
  { keys: ["lrm"] },
  { keys: ["dt_ms"] },
  { keys: ["mem_gib"], none: "Memory of GPUs is left out: the stages of this run work on a CPU." },
];

export function metrics(panel, run, live) {
  const points = new Points(live.id, PLOTS.flatMap((plot) => plot.keys), BUCKETS);
  const grid = h("div", { class: "plots" });
  const charts = PLOTS.map((plot) => {
    const metric = live.catalog.metrics.find((m) => m.key === plot.keys[0]);
    const chart = new Chart({ range: shared.range, label: metric.label, legend: plot.keys.length > 1 });
    const node = h("section", { class: "panel small-plot" }, h("h3", null, upper(metric.title)), chart.node);
    grid.append(node);
    return { plot, chart, node };
  });
  const left = h("p", { class: "dim small" }); // why a plot is left out
  const devices = hardware(live);
  fill(panel, grid, left, devices.node);

  let missing = []; // plots that are left out, and why
  let drawn = []; // what of the stages: {points, place, pick}
  const training = live.catalog.stages.filter((s) => s.trains).map((s) => s.name);
  function draw() {
    const begun = points.series.some((s) => s.points.length);
    missing = [];
    drawn = [];
    for (const { plot, chart, node } of charts) {
      const wanted = live.catalog.metrics.filter((m) => plot.keys.includes(m.key));
      const pick = (stage) => wanted.filter((m) => points.of(stage, m.key)?.points.length);
      const { lines, marks, place } = linesOf({
        run: live.run, points, stages: shared.stage ? [shared.stage] : training, mode: shared.mode, logX: shared.logX, logY: false, smooth: 0, short: live.short,
        pick, color: (metric) => `c${1 + wanted.indexOf(metric)}`,
      });
      const axes = [...new Map(lines.map((line) => [line.axis, { key: line.axis, label: line.metric.unit || line.metric.title }])).values()];
      node.hidden = !lines.length;
      drawn.push({ points, place, pick });
      if (begun && node.hidden && plot.none) missing.push(plot.none);
      chart.draw({ x: { ...AXES[shared.mode], log: shared.logX }, axes, lines, marks: marks.filter((m) => m.kind !== "stage"), empty: nothing(points, lines, place, "this figure", live.short) });
    }
    told();
  }

  /** Say what is left out, or which curves appear when. */
  function told() {
    if (points.series.some((s) => s.points.length)) return say(left, missing.join(" "));
    if (points.wrong || !points.loaded) return say(left, nothing(points, [], null, "", live.short));
    const title = ({ keys: [key] }) => live.catalog.metrics.find((m) => m.key === key).title;
    const [always, onGpus] = [PLOTS.filter((plot) => !plot.none), PLOTS.filter((plot) => plot.none)].map((plots) => plots.map(title).join(", "));
    const reports = live.run.stages.some((s) => training.includes(s.name) && Object.keys(s.latest).length);
    const so = reports ? "Training has reported none of the figures of this tab so far. Each curve appears" : "No points yet. Each curve appears";
    say(left, `${so} with the first step that reports it: ${always}; on GPUs also ${onGpus}.`);
  }
  let due = 0;
  const soon = () => (due ||= setTimeout(() => ((due = 0), draw()), DRAW_MS));
  shared.listeners.add(draw);
  const finer = new Finer(shared.range, () => drawn, draw);
  const unfollow = live.onRun(told);
  const stop = points.follow(live, draw, soon, () => shared.range.settle());
  return () => {
    stop();
    unfollow();
    finer.stop();
    devices.stop();
    clearTimeout(due);
    shared.listeners.delete(draw);
    for (const { chart } of charts) chart.destroy();
  };
}

const upper = (text) => text[0].toUpperCase() + text.slice(1);
