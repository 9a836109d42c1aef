// The figures of a run's models side by side, with the change from the model before and its standard error.
import { h } from "../../dom.js";
import { DASH } from "../../format.js";
import { table } from "./panel.js";

export const COLUMNS = { BASE: "Base", MID: "Mid", SFT: "SFT", RL: "RL" };
// Rows whose figure is no share of right answers; those of losses are better when lower.
const LOSSES = new Set(["Bits per byte, text", "Bits per byte, conversations", "Validation loss"]);
const UNITS = { "Bits per byte, text": "bits per byte, lower is better", "Bits per byte, conversations": "bits per byte, lower is better", "Validation loss": "nats per token, lower is better" };
const MEANS = /^(CORE|ChatCORE)/;

const count = (n) => (n ?? 0).toLocaleString("en");
const isShare = (row) => !LOSSES.has(row.name) && !MEANS.test(row.name);
const figure = (row, value) => (isShare(row) ? `${(100 * value).toFixed(1)} %` : value.toFixed(4));
const spread = (row, error) => (isShare(row) ? `± ${(100 * error).toFixed(1)}` : `± ${error.toFixed(4)}`);

/** The summary of a report as a table, or null if nothing was measured. */
export function scores(report) {
  const shown = Object.keys(COLUMNS).filter((c) => report.summary.some((row) => c in row.values));
  if (!shown.length) return null;
  const counts = judged(report);
  const body = h("tbody", null, report.summary.map((row) =>
    h("tr", { class: MEANS.test(row.name) ? "total" : null },
      h("th", { scope: "row" }, row.name, h("span", { class: "sub" }, UNITS[row.name] ?? counts[row.name] ?? (MEANS.test(row.name) ? "0 is guessing, 1 is perfect" : ""))),
      shown.map((column, i) => cell(row, column, shown.slice(0, i).reverse().find((c) => c in row.values))))));
  return table("Scores of the run's models", ["Measured", ...shown.map((c) => [COLUMNS[c], "num"])], body);
}

function cell(row, column, before) {
  const value = row.values[column];
  if (value === undefined) return h("td", { class: "num dim" }, DASH);
  const error = row.errors[column];
  return h("td", { class: "num" }, h("span", { class: "figure" }, figure(row, value)), error !== undefined && h("span", { class: "error", title: "standard error" }, ` ${spread(row, error)}`),
    before && change(row, value - row.values[before], Math.hypot(error ?? 0, row.errors[before] ?? 0), COLUMNS[before]));
}

/** The change in words for all readers: a sign, a colour, and whether it is more than chance. */
function change(row, by, error, than) {
  const better = LOSSES.has(row.name) ? by < 0 : by > 0;
  if (Math.abs(by) < 1e-9) return h("span", { class: "sub delta" }, "unchanged");
  const sure = Math.abs(by) > 2 * error;
  const text = isShare(row) ? `${Math.abs(100 * by).toFixed(1)}` : Math.abs(by).toFixed(4);
  const sign = by > 0 ? "+" : "−";
  return h("span", { class: `sub delta ${sure ? (better ? "good" : "bad") : ""}`, title: `${sign}${text} against ${than}; ${sure ? (better ? "better" : "worse") : "within two standard errors"}` },
    sure ? (better ? "▲ " : "▼ ") : "", `${sign}${text}`);
}

/** How many problems were behind each row of a chat task: title → text. */
function judged(report) {
  const found = {};
  const byKey = Object.assign({}, ...report.stages.map((s) => (s.name.startsWith("chat_eval") ? s.results.tasks : null) ?? {}));
  for (const [key, task] of Object.entries(byKey)) {
    const parts = [`${count(task.n)}${task.rows > task.n ? ` of ${count(task.rows)}` : ""} problems`];
    if (task.baseline) parts.push(`guessing gives ${(100 * task.baseline).toFixed(0)} %`);
    if (task.skipped) parts.push(`${count(task.skipped)} too long for the context`);
    found[TITLES[key] ?? key] = parts.join(" · ");
  }
  return found;
}

// Titles of tasks, as in libs/nanochat/tasks/catalog.py; a task of the user's own is called by its name.
export const TITLES = { arc_easy: "ARC-Easy", arc_challenge: "ARC-Challenge", mmlu: "MMLU", gsm8k: "GSM8K", humaneval: "HumanEval", spellingbee: "SpellingBee", counting: "Letter counting", spelling: "Spelling", sums: "Sums" };

/** CORE's tasks: a bar from guessing (0) to perfect (1), with the accuracy behind it. */
export function coreTasks(core) {
  const tasks = Object.entries(core.tasks ?? {}).sort(([, a], [, b]) => b.centered - a.centered);
  if (!tasks.length) return null;
  const body = h("tbody", null, tasks.map(([name, t]) => {
    const share = Math.max(0, Math.min(1, t.centered));
    const error = t.stderr === undefined || t.stderr === null ? null : t.stderr / (1 - (t.baseline ?? 0));
    return h("tr", null, h("th", { scope: "row" }, name.replaceAll("_", " ")),
      h("td", { class: "meter-cell" }, h("div", { class: "meter", "aria-hidden": "true" }, h("i", { style: { width: `${100 * share}%` } }))),
      h("td", { class: "num" }, t.centered.toFixed(3).replace("-", "−"), error ? h("span", { class: "error" }, ` ± ${error.toFixed(3)}`) : null),
      h("td", { class: "num" }, `${(100 * t.accuracy).toFixed(1)} %`),
      h("td", { class: "num" }, t.baseline === undefined ? DASH : `${(100 * t.baseline).toFixed(0)} %`),
      h("td", { class: "num" }, count(t.n), t.rows > t.n && h("span", { class: "dim" }, ` of ${count(t.rows)}`)));
  }));
  return table("Tasks of CORE", ["Task", ["0 to 1", "meter-cell"], ["Centred score", "num"], ["Accuracy", "num"], ["Guessing", "num"], ["Items", "num"]], body);
}
