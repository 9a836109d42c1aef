// What a sweep does and what can be asked of it, as words, bars and dialogs.
import { del, patch, path, post } from "../api.js";
import { h } from "../dom.js";
import { chip, percent, statusWord } from "../format.js";
import { bar } from "../progress.js";
import { ask, field } from "../controls.js";
import { mark } from "../parts.js";

const SHOWN = ["RUNNING", "QUEUED", "PAUSED", "PENDING", "SUCCEEDED", "FAILED", "CANCELLED"];
const KINDS = { grid: "grid", random: "random draws", depths: "depth ladder", ablate: "ablation" };

export const kind = (sweep) => KINDS[sweep.kind] ?? sweep.kind;

export function status(sweep) {
  if (sweep.status !== "FINISHED") return chip(sweep.status);
  const done = sweep.runs.SUCCEEDED ?? 0;
  return done + sweep.stopped_early >= total(sweep) ? mark("✓", "Finished", "good") : mark("◐", "Finished, not all succeeded", "warn");
}

export const total = (sweep) => Object.values(sweep.runs).reduce((sum, count) => sum + count, 0);

const ended = (sweep) => (sweep.runs.SUCCEEDED ?? 0) + (sweep.runs.FAILED ?? 0) + (sweep.runs.CANCELLED ?? 0);

export function progress(sweep) {
  const [done, all] = [ended(sweep), total(sweep)];
  const tone = sweep.status === "FINISHED" ? "good" : sweep.status === "PAUSED" ? "warn" : "active";
  return [bar(all ? done / all : NaN, tone, `Runs of ${sweep.name} that have ended`), h("span", { class: "sub" }, counts(sweep))];
}

/** "8 runs: 2 running, 5 succeeded, 1 failed" */
export function counts(sweep) {
  const parts = [...new Set([...SHOWN, ...Object.keys(sweep.runs)])].filter((name) => sweep.runs[name]).map((name) => `${sweep.runs[name]} ${statusWord(name).toLowerCase()}`);
  if (sweep.stopped_early) parts.push(`${sweep.stopped_early} of them stopped early`);
  return `${total(sweep)} ${total(sweep) === 1 ? "run" : "runs"}: ${parts.join(", ")} (${percent(ended(sweep) / total(sweep))} ended)`;
}

/** What an operator can ask of the sweep now: [label, class, what it does]. Each asks first if it cannot be taken back. */
export function deeds(sweep) {
  const live = sweep.status !== "FINISHED";
  const runs = total(sweep) === 1 ? "its run" : `its ${total(sweep)} runs`;
  return [
    sweep.status === "RUNNING" && ["Pause", "", () => post(path`/sweeps/${sweep.id}/pause`)],
    live && (sweep.runs.PAUSED ?? 0) > 0 && ["Resume", "primary", () => post(path`/sweeps/${sweep.id}/resume`)],
    live && ["Parallel runs", "", () => limit(sweep)],
    live && ["Cancel", "danger", () => cancel(sweep)],
    !live && !sweep.archived_at && ["Archive", "", () => patch(path`/sweeps/${sweep.id}`, { archived: true })],
    sweep.archived_at && ["Bring back", "", () => patch(path`/sweeps/${sweep.id}`, { archived: false })],
    !live && ["Delete", "danger", async () => (await remove(sweep, runs)) && location.assign("/sweeps")],
  ].filter(Boolean);
}

function limit(sweep) {
  const input = h("input", { name: "most", type: "number", min: 1, max: 1000, step: 1, required: true, value: sweep.max_parallel ?? total(sweep) });
  return ask({
    title: "How many runs may go on at once?",
    text: "Runs that go on already are not stopped. The others wait for their turn.",
    action: "Set the limit",
    fields: [field("Runs at once", input)],
    run: ({ most }) => patch(path`/sweeps/${sweep.id}`, { max_parallel: Number(most) }),
  });
}

function cancel(sweep) {
  return ask({
    title: `Cancel ${sweep.name}?`,
    text: [`${total(sweep) - ended(sweep)} of its runs are not finished. Their stages save their work and end.`, "A cancelled run cannot go on; a fork of it can. To go on later, pause the sweep."],
    action: "Cancel the sweep",
    danger: true,
    run: () => post(path`/sweeps/${sweep.id}/cancel`, {}),
  });
}

function remove(sweep, runs) {
  return ask({
    title: `Delete ${sweep.name}?`,
    text: `The sweep is deleted with ${runs}, their curves, reports and checkpoints, for good. If one of them is needed, nothing is deleted and the reason is shown here.`,
    action: "Delete it all",
    danger: true,
    run: () => del(path`/sweeps/${sweep.id}`),
  });
}
