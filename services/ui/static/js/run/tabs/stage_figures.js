// The figures of one stage: single values, tables, samples, attempts; closed until one opens it.
import { h } from "../../dom.js";
import { DASH, bytes, number, seconds } from "../../format.js";
import { isTable } from "../../recipe.js";
import { TITLES } from "./scores.js";
import { table } from "./panel.js";

const STATES = { done: ["✓", "good"], failed: ["✗", "bad"], stopped: ["⊘", "warn"], running: ["●", "active"] };
const ELSEWHERE = new Set(["samples", "machine"]);
const ROWS = 60;
const WORDS = {
  val_bpb: "validation bits per byte", untrained_val_bpb: "validation bits per byte before training", min_val_bpb: "lowest validation bits per byte", loss: "training loss (nats per token)",
  val_loss: "validation loss (nats per token)", tok_per_s: "tokens per second", mfu: "MFU (% of the bf16 peak)", mem_gib: "peak memory (GiB)", params: "parameters", flops_per_token: "FLOPs per token",
  world_size: "processes", chatcore: "ChatCORE", chatcore_5: "ChatCORE without SpellingBee", bpb: "bits per byte", n: "problems", stderr: "standard error", ratio: "bytes per token", fewer_pct: "fewer tokens than it (%)",
};
const words = (key) => WORDS[key] ?? key.replaceAll("_", " ");

/** A figure of any JSON type as text. Keys that end in seconds and bytes have that unit. */
function shown(key, value) {
  if (value === null || value === undefined || value === "") return DASH;
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value === "number") return key.endsWith("seconds") ? seconds(value) : key.endsWith("_bytes") ? bytes(value) : number(value);
  if (Array.isArray(value)) return value.slice(0, ROWS).map((v) => shown(key, v)).join(", ") || DASH;
  if (isTable(value)) return Object.entries(value).slice(0, ROWS).map(([k, v]) => `${words(k)} ${shown(k, v)}`).join(", ") || DASH;
  return String(value);
}

export function section(stage) {
  const [symbol, tone] = STATES[stage.state] ?? ["○", ""];
  const plain = [];
  const grids = [];
  for (const [key, value] of Object.entries(stage.results)) {
    if (ELSEWHERE.has(key)) continue;
    if (key === "core" && isTable(value)) {
      const { tasks, ...rest } = value;
      plain.push(["CORE", rest.core]);
      for (const [name, v] of Object.entries(rest)) if (name !== "core" && !(Array.isArray(v) && !v.length)) plain.push([name, v]);
      if (tasks) grids.push(named("task", tasks));
    } else if (isTable(value) && Object.values(value).length && Object.values(value).every(isTable)) grids.push(named(key, value));
    else if (Array.isArray(value) && value.length && value.every(isTable)) grids.push(records(key, value));
    else plain.push([key, value]);
  }
  const attempts = stage.record.attempts.filter((a) => a.ended || a.resumed_from_step !== null);
  const samples = (stage.results.samples ?? []).filter(isTable);
  return h("details", { class: "folded" },
    h("summary", null, h("span", { class: `chip ${tone}`, "data-symbol": symbol }, stage.title), h("span", { class: "dim small" }, stage.state === "done" ? "" : ` ${stage.state}`, headline(stage))),
    h("div", { class: "stack folded-body" },
      stage.why && h("p", { class: "notice bad" }, stage.why),
      plain.length > 0 && h("dl", { class: "pairs" }, plain.map(([key, value]) => [h("dt", null, words(key)), h("dd", { class: "break" }, shown(key, value))])),
      attempts.length > 0 && h("ul", { class: "plain-list" }, attempts.map((a) => h("li", null, `Attempt ${a.no}${a.resumed_from_step === null ? "" : ` went on from step ${number(a.resumed_from_step)}`}${a.ended ? `; it ended: ${a.ended}` : ""}`))),
      grids, samples.length > 0 && spoken(samples)));
}

/** The figure that one looks for first. */
function headline(stage) {
  const r = stage.results;
  const parts = [
    typeof r.val_bpb === "number" && `${number(r.val_bpb)} bits per byte`,
    typeof r.val_loss === "number" && `validation loss ${number(r.val_loss)} nats per token`,
    typeof r.core?.core === "number" && `CORE ${r.core.core.toFixed(4)}`,
    typeof r.chatcore === "number" && `ChatCORE ${r.chatcore.toFixed(4)}`,
    typeof r.tok_per_s === "number" && `${number(r.tok_per_s)} tokens per second`,
    stage.seconds !== null && seconds(stage.seconds),
  ].filter(Boolean);
  return parts.length ? ` ${parts.join(" · ")}` : "";
}

const named = (title, tables) => records(title, Object.entries(tables).map(([name, values]) => ({ [title]: TITLES[name] ?? name, ...values })));

function records(caption, rows) {
  const keys = [...new Set(rows.flatMap(Object.keys))];
  const isText = (key) => rows.some((row) => typeof row[key] === "string");
  return [table(words(caption), keys.map((key) => (isText(key) ? words(key) : [words(key), "num"])),
    h("tbody", null, rows.slice(0, ROWS).map((row) => h("tr", null, keys.map((key) => h("td", { class: isText(key) ? "break" : "num" }, shown(key, row[key]))))))),
    rows.length > ROWS && h("p", { class: "hint" }, `The first ${ROWS} of ${number(rows.length)} rows.`)];
}

function spoken(samples) {
  return h("ul", { class: "plain-list spoken" }, samples.slice(0, ROWS).map((s) => h("li", null,
    h("p", { class: "sample-prompt" }, s.prompt),
    h("p", { class: "sample-text" }, s.completion ?? s.text ?? "", typeof s.right === "boolean" && h("span", { class: `chip ${s.right ? "good" : "bad"}`, "data-symbol": s.right ? "✓" : "✗" }, s.right ? "right" : "wrong")))));
}
