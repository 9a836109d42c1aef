// The columns of the list of runs.
import { h } from "../dom.js";
import { DASH, FINISHED, between, chip, dollars, number, percent, seconds, time, tone } from "../format.js";
import { bar } from "../progress.js";
import { called } from "../stage_names.js";

const ORDER = ["RUNNING", "QUEUED", "PAUSED", "FAILED", "CANCELLED", "SUCCEEDED"];

export const COLUMNS = [
  { id: "name", title: "Run", class: "wide", cell: (run) => name(run), value: (run) => run.name },
  { id: "status", title: "Status", class: "status", cell: status, value: (run) => ORDER.indexOf(run.status) },
  { id: "progress", title: "Progress", class: "progress", cell: progress, value: (run) => run.fraction, descends: true },
  { id: "left", title: "Time left", num: true, cell: (run) => (FINISHED.has(run.status) ? "" : seconds(run.eta_s)), value: (run) => run.eta_s },
  { id: "speed", title: "Tokens/s", num: true, cell: (run) => number(run.figures.tok_per_s, 3), value: (run) => run.figures.tok_per_s, descends: true, hint: "Tokens per second of the last training stage" },
  { id: "bpb", title: "Bits/byte", num: true, cell: (run) => fixed(run.figures.val_bpb, 4), value: (run) => run.figures.val_bpb, hint: "Bits per byte on the validation text of pretraining; lower is better" },
  { id: "core", title: "CORE", num: true, cell: (run) => fixed(run.figures.core, 4), value: (run) => run.figures.core, descends: true, hint: "Mean over 22 tasks, each scaled so that guessing is 0 and perfection 1; higher is better" },
  { id: "cost", title: "Cost", num: true, cell: cost, value: (run) => run.budget.used_usd, descends: true, hint: "Dollars of GPUs so far, of the budget if there is one; a dash means that their price is unknown" },
  { id: "created", title: "Submitted", num: true, cell: age, value: (run) => run.created_at, descends: true },
];

const fixed = (x, digits) => (Number.isFinite(x) ? x.toFixed(digits) : DASH);

function name(run) {
  return [
    h("a", { href: `/runs/${run.id}`, class: "run-name break" }, run.name),
    h("span", { class: "sub" }, run.recipe, " · ", h("code", null, run.id), run.labels.map((label) => [" ", h("button", { type: "button", class: "tag", "data-label": label, title: `Only runs with the label ${label}` }, label)])),
  ];
}

function status(run) {
  const turn = run.queue_position && !FINISHED.has(run.status) ? `${ordinal(run.queue_position)} in the queue` : "";
  const why = [turn, run.why].filter(Boolean).join(": ");
  return [chip(run.status), why && h("span", { class: "sub break", title: why }, why)];
}

function ordinal(n) {
  const last = n % 100 > 10 && n % 100 < 14 ? 0 : n % 10;
  return `${n}${["th", "st", "nd", "rd"][last] ?? "th"}`;
}

function progress(run) {
  const stages = `${run.stages_done} of ${run.stages_total} stages`;
  const { current } = run;
  const title = current && called(current.name);
  const share = current?.progress?.fraction ?? null;
  const text = !current || FINISHED.has(run.status) ? stages : share === null ? title : `${title} ${percent(share)}`;
  return [bar(run.fraction, tone(run.status), `${run.name}: ${percent(run.fraction)}, ${stages}`), h("span", { class: "sub", title: stages }, text)];
}

function cost({ budget }) {
  const { used_usd: usd, max_usd: most, used_hours: hours, max_hours: longest } = budget;
  const tight = (most && usd > 0.8 * most) || (longest && hours > 0.8 * longest);
  const limits = [most && `of ${dollars(most)}`, longest && `${seconds(3600 * hours)} of ${seconds(3600 * longest)}`].filter(Boolean).join(", ");
  return [dollars(usd), limits && h("span", { class: tight ? "sub warn-text" : "sub" }, limits)];
}

function age(run) {
  const took = run.started_at && run.finished_at ? `took ${seconds(between(run.started_at, run.finished_at))}` : "";
  return [time(run.created_at, "ago"), took && h("span", { class: "sub" }, took)];
}
