// What the stages of a run do, and their figures.
import { between, number } from "../format.js";

/** Those that a worker has. */
export const atWork = (run) => run.stages.filter((stage) => isAtWork(stage));
export const isAtWork = (stage) => ["STARTING", "RUNNING", "STOPPING"].includes(stage.status);

/** The share of a stage that is done, 0 to 1. */
export function shareOf(stage) {
  return stage.status === "SUCCEEDED" ? 1 : (stage.progress?.fraction ?? 0);
}

/** How far a stage is, such as "step 101 of 120". */
export function reached({ done, total, unit }) {
  return `${unit || "unit"} ${number(done)}${total ? ` of ${number(total)}` : ""}`;
}

/** Seconds in which attempts of the stage worked. */
export function tookOf(stage) {
  return stage.attempts.reduce((sum, a) => sum + (a.started_at ? Math.max(0, between(a.started_at, a.finished_at)) : 0), 0);
}

/** The newest value of a metric, of the stage that is at work or was last. */
export function newest(run, key) {
  const stage = run.stages.findLast((s) => key in s.latest && s.started_at);
  return stage && { stage, value: stage.latest[key] };
}
