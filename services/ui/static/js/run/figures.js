// How far a run is and how long it still takes, from its stages and its plan.
import { FINISHED, between } from "../format.js";

const SOON_S = 1; // less is no time left: nobody waits for it

/** The share of a stage that is done, 0 to 1. */
export function shareOf(stage) {
  if (stage.status === "SUCCEEDED") return 1;
  const { done, total } = stage.progress ?? {};
  return total > 0 ? Math.min(1, done / total) : 0;
}

/** Seconds that the plan has for a stage; a stage that has ended took what it took. NaN if neither is known. */
function lengthOf(stage, planned) {
  if (stage.status === "SUCCEEDED") return tookOf(stage);
  const hours = planned.get(stage.name);
  if (typeof hours === "number") return hours * 3600;
  const share = shareOf(stage);
  return share > 0.02 && stage.finished_at === null ? tookOf(stage) / share : NaN;
}

/** Seconds in which attempts of the stage worked. */
export function tookOf(stage) {
  return stage.attempts.reduce((sum, a) => sum + (a.started_at ? Math.max(0, between(a.started_at, a.finished_at)) : 0), 0);
}

/**
 * @param {Map<string, number | null>} planned hours by the name of the stage
 * @returns {{share: number, left: number, unknown: string[]}} share 0 to 1 of the whole run, weighted by time where all of it is known;
 *   seconds left of the stages whose time is known (NaN if none is); names of the stages of unknown length
 */
export function outlook(run, planned) {
  const lengths = run.stages.map((stage) => lengthOf(stage, planned));
  const known = lengths.every(Number.isFinite) && lengths.some((s) => s > 0);
  const weights = known ? lengths : lengths.map(() => 1);
  const whole = weights.reduce((a, b) => a + b, 0) || 1;
  const share = run.status === "SUCCEEDED" ? 1 : run.stages.reduce((sum, stage, i) => sum + weights[i] * shareOf(stage), 0) / whole;
  let left = NaN;
  const unknown = [];
  if (!FINISHED.has(run.status)) {
    run.stages.forEach((stage, i) => {
      if (FINISHED.has(stage.status)) return;
      const rest = stage.status === "RUNNING" && stage.progress?.eta_s > 0 ? stage.progress.eta_s : lengths[i] * (1 - shareOf(stage));
      if (Number.isFinite(rest)) left = (Number.isFinite(left) ? left : 0) + rest;
      else unknown.push(stage.name);
    });
  }
  return { share, left: left >= SOON_S ? left : NaN, unknown };
}

/** The newest value of a metric, of the stage that is at work or was last. */
export function newest(run, key) {
  const stage = run.stages.findLast((s) => key in s.latest && s.started_at);
  return stage && { stage, value: stage.latest[key] };
}
