// What the x axis of a run's curves can be, and where a point lies on it.
export const AXES = {
  step: { label: "step", kind: "step" },
  tokens: { label: "tokens", kind: "number", per: "tokens_per_step" },
  flops: { label: "training FLOPs", kind: "number", per: "flops_per_step" },
  time: { label: "time", kind: "time" },
  relative: { label: "time since the start", kind: "duration" },
};

/**
 * Where points lie on the axis. With several stages they follow each other.
 * @param {{run: any, mode: string, stages: string[], series: any[]}} of
 * @returns {{at: (stage: string, step: number, t: number) => number, starts: Map<string, number>, unknown: string[]}}
 *   `at` gives NaN for a stage in `unknown`, whose tokens or FLOPs nobody knows
 */
export function placed({ run, mode, stages, series }) {
  const { per: field, kind } = AXES[mode];
  const starts = new Map();
  if (kind === "time" || kind === "duration") {
    const first = run.stages.find((s) => stages.includes(s.name) && s.started_at)?.started_at ?? run.started_at;
    const zero = kind === "time" ? 0 : new Date(first) / 1000;
    const late = lateness(stages, series);
    const at = (stage, step, t) => t + late(stage, step) - zero;
    for (const stage of stages) {
      const points = series.filter((s) => s.stage === stage).flatMap((s) => s.points.slice(0, 1));
      if (points.length) starts.set(stage, Math.min(...points.map((p) => at(stage, p.step, p.t))));
    }
    return { at, starts, unknown: [] };
  }
  const per = (stage) => (field ? (series.find((s) => s.stage === stage)?.[field] ?? NaN) : 1);
  const unknown = stages.filter((stage) => !(per(stage) > 0));
  let sum = 0;
  for (const stage of stages) {
    starts.set(stage, sum);
    const last = Math.max(0, ...series.filter((s) => s.stage === stage).map((s) => s.points.at(-1)?.step ?? 0));
    if (!unknown.includes(stage)) sum += last * per(stage);
  }
  return { at: (stage, step) => starts.get(stage) + step * per(stage), starts, unknown };
}

/**
 * By how many seconds a step lies later than its clock said. What follows when a clock is set back, or on a machine whose clock is behind,
 * comes next, until that clock is ahead again.
 */
function lateness(stages, series) {
  const changes = new Map(); // stage → [step, seconds] from that step on
  let [newest, between, late] = [-Infinity, 1, 0];
  for (const stage of stages) {
    const points = series.filter((s) => s.stage === stage).flatMap((s) => s.points).sort((a, b) => a.step - b.step || a.t - b.t);
    const its = [[-Infinity, late]];
    for (const { step, t } of points) {
      const wanted = t >= newest ? 0 : t + late >= newest ? late : newest + between - t;
      if (wanted !== late) its.push([step, (late = wanted)]);
      if (newest > -Infinity) between = t + late - newest || between;
      newest = t + late;
    }
    changes.set(stage, its);
  }
  return (stage, step) => changes.get(stage)?.findLast(([from]) => from <= step)[1] ?? 0;
}
