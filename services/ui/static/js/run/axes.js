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
    for (const stage of stages) {
      const points = series.filter((s) => s.stage === stage).flatMap((s) => s.points.slice(0, 1));
      if (points.length) starts.set(stage, Math.min(...points.map((p) => p.t)) - zero);
    }
    return { at: (stage, step, t) => t - zero, starts, unknown: [] };
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
