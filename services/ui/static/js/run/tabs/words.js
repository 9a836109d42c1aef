// Events in words. Every kind that the platform writes has its words here; codes of reasons are told as sentences.
import { bytes, number, statusWord } from "../../format.js";

/** Kinds of events by what a reader looks for. What comes with every step (metric, progress, log) is elsewhere on the page. */
export const GROUPS = {
  status: ["Status", ["run_submitted", "run_status", "stage_status", "stage_taken_over", "run_forked", "run_released", "run_deleted", "sweep_compared"]],
  checkpoints: ["Checkpoints", ["checkpoint", "checkpoint_deleted", "promoted", "demoted"]],
  results: ["Results", ["eval", "artifact"]],
  changes: ["Changes and budget", ["run_changed", "budget_warning", "budget_spent"]],
  problems: ["Warnings and errors", ["warning", "error", "line_quarantined", "metrics_missing", "webhook_off"]],
};
export const KINDS = Object.values(GROUPS).flatMap(([, kinds]) => kinds);
const GROUP_OF = Object.fromEntries(Object.entries(GROUPS).flatMap(([id, [, kinds]]) => kinds.map((kind) => [kind, id])));
export const groupOf = (kind) => GROUP_OF[kind] ?? "problems";

const REASONS = {
  USER_CANCEL: "Cancelled on request.", USER_ABORT: "Cancelled at once on request; nothing was saved.", USER_PAUSE: "Paused on request.",
  BUDGET: "The budget of the run is spent.", STOPPED_EARLY: "Other runs of its sweep were better at the same point.",
  HOST_DRAIN: "Its worker shut down; another one continues.", STOPPED: "It stopped without a stop request.",
  BAD_INPUT: "Its input or configuration is not valid.", NONFINITE: "The loss became NaN or infinite.", DIVERGED: "Training made the model worse than untrained.",
  CUDA_OOM: "Out of memory.", DISK_FULL: "The disk is full.", READ_ONLY: "A folder cannot be written.", NCCL_TIMEOUT: "The GPUs lost contact with one another.",
  TRANSIENT: "A fault that may be temporary.", CRASHED: "The stage crashed.", KILLED: "A process was killed from outside.",
  BAD_OUTPUT: "An output is missing or damaged.", LAUNCH_FAILED: "Its processes could not be started.", STALLED: "No sign of work for too long.",
  WORKER_LOST: "Its worker sent no more heartbeats.",
};

const NOW = {
  PENDING: "waits for its inputs", QUEUED: "waits for a worker", STARTING: "starts on a worker", RUNNING: "is at work", STOPPING: "saves its work and ends",
  BACKOFF: "will be tried again", PAUSED: "is paused", SUCCEEDED: "has succeeded", FAILED: "has failed", CANCELLED: "is cancelled",
};
const TONES = { RUNNING: "active", STARTING: "active", SUCCEEDED: "good", FAILED: "bad", BACKOFF: "warn", STOPPING: "warn", PAUSED: "warn" };

const step = (d) => (d.step === undefined ? "" : ` at step ${number(d.step)}`);
const ASIDE = new Set(["n", "rows", "baseline"]); // of an evaluation; the tab Evals has them
function values(of) {
  if (typeof of !== "object" || !of) return String(of ?? "");
  const shown = Object.entries(of).filter(([key]) => !ASIDE.has(key)).map(([key, value]) => `${key === "stderr" ? "±" : key} ${number(value, 3)}`);
  return shown.slice(0, 6).join(", ") + (shown.length > 6 ? ", …" : "");
}

/** kind → data → [what happened, details, tone]. What begins with a small letter continues the name of the stage. */
const WORDS = {
  run_submitted: (d) => ["The run was submitted", d.recipe ? `Recipe ${d.recipe}` : ""],
  run_status: (d) => [`The run ${NOW[d.to] ?? statusWord(d.to)}`, d.detail, TONES[d.to]],
  run_forked: (d) => ["The run was forked from another one", [d.checkpoint && `From checkpoint ${d.checkpoint}`, d.reused?.length && `Taken over: ${d.reused.join(", ")}`].filter(Boolean).join(". ")],
  run_released: () => ["Its sweep lets the run begin"],
  run_changed: (d) => ["Priority or budget was changed", changed(d)],
  run_deleted: () => ["The run was deleted", "", "bad"],
  sweep_compared: (d) => [d.goes_on ? "It goes on in its sweep" : "It falls behind in its sweep", `${d.metric} ${number(d.value)}${step(d)}; the best of ${d.runs} runs has ${number(d.best)}`, d.goes_on ? "" : "warn"],
  stage_status: (d) => [`${d.attempt > 1 ? `(attempt ${d.attempt}) ` : ""}${NOW[d.to] ?? d.to}`, d.reason === "COMPLETED" ? "" : d.message || REASONS[d.reason] || "", TONES[d.to]],
  stage_taken_over: (d) => ["Taken over from another run", d.from, "good"],
  budget_warning: (d) => ["Most of the budget is used", d.message, "warn"],
  budget_spent: (d) => ["The budget is spent", d.message, "bad"],
  checkpoint: (d) => [`${d.final ? "Final checkpoint" : "Checkpoint"}${step(d)}`, [bytes(d.bytes), d.val_bpb !== undefined && d.val_bpb !== null && `${number(d.val_bpb)} bits per byte`, d.write_s && `written in ${number(d.write_s, 2)} s`].filter(Boolean).join(" · ")],
  checkpoint_deleted: (d) => [`Checkpoint deleted${step(d)}`, d.path],
  promoted: (d) => [`Checkpoint promoted${step(d)}`, "The inference service offers it.", "good"],
  demoted: (d) => [`Promotion taken back${step(d)}`, d.checkpoint],
  artifact: (d) => [`Published ${d.name}`, d.sha256 && `sha256 ${d.sha256.slice(0, 16)}…`, "good"],
  eval: (d) => [`Evaluated ${d.name.replace("core/", "CORE: ").replaceAll("_", " ")}${step(d)}`, values(d.values)],
  sample: (d) => [`Sample${step(d)}`, `${d.prompt}${d.text}`],
  warning: (d) => ["Warning", d.message, "warn"],
  error: (d) => ["Error", [d.message, d.hint].filter(Boolean).join("\n"), "bad"],
  line_quarantined: (d) => [`Line ${number(d.line)} of its events was set aside`, `${d.reason}: ${d.text}`, "warn"],
  metrics_missing: (d) => ["Some metrics are missing", d.message, "warn"],
  webhook_off: (d) => [`Webhook ${d.name} was switched off`, d.message, "warn"],
};

function changed(d) {
  const names = { priority: "priority", max_usd: "budget in US dollars", max_hours: "budget in hours" };
  return Object.entries(d).filter(([key]) => key in names).map(([key, value]) => `${names[key]}: ${number(value)}`).join(", ");
}

/** An event as {what, details, tone, by}. A kind that is not known here keeps its name. */
export function inWords(event) {
  const told = WORDS[event.kind]?.(event.data) ?? [event.kind.replaceAll("_", " "), event.data.message ?? values(event.data)];
  return { what: told[0], details: told[1] || "", tone: told[2] || "", by: event.data.by ?? "" };
}

/** What a key asked for, as the audit trail names it. */
export const ACTIONS = {
  submit_run: "Submitted the run", cancel_run: "Asked to cancel", pause_run: "Asked to pause", resume_run: "Asked to resume", retry_run: "Asked for another try", edit_run: "Changed name, notes or labels",
  fork_run: "Forked the run", extend_run: "Extended the run", delete_run: "Deleted the run", change_scheduling: "Changed priority or budget", promote_checkpoint: "Promoted a checkpoint",
  demote_checkpoint: "Took a promotion back", pin_checkpoint: "Pinned a checkpoint", unpin_checkpoint: "Unpinned a checkpoint", delete_checkpoint: "Deleted a checkpoint",
};
