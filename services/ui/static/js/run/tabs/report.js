// The report card in the look of the page. The standalone page, which one can send to others, is a link away.
import { get, path } from "../../api.js";
import { fill, h } from "../../dom.js";
import { DASH, bytes, dollars, number, seconds, time } from "../../format.js";
import { kept, table } from "./panel.js";
import { scores } from "./scores.js";
import { section as stageSection } from "./stage_figures.js";

const NOTES = { missing: ["Missing", "bad"], "cut short": ["Cut short", "warn"], resumed: ["Resumed", "active"], warning: ["Warning", "warn"] };

export function report(panel, run, live) {
  async function read() {
    try {
      return await get(path`/runs/${run.id}/report`);
    } catch (err) {
      if (err.status !== 404) throw err;
      return { none: err.message };
    }
  }

  function show(answer) {
    if (answer.none) return fill(panel, h("div", { class: "empty dim" }, answer.none));
    const open = new Set([...panel.querySelectorAll("details[open] > summary")].map((summary) => summary.textContent));
    fill(panel, answer.report ? card(run, answer.report) : old(run, answer.markdown));
    for (const summary of panel.querySelectorAll("details > summary")) if (open.has(summary.textContent)) summary.parentElement.open = true;
  }

  return kept(panel, live, {
    what: "the report", read, show, changes: ({ kind, data }) => kind === "artifact" && ["results", "report"].includes(data.name),
  }).stop;
}

function links(run) {
  const id = encodeURIComponent(run.id);
  return h("div", { class: "row" }, h("a", { class: "button", href: `/report/${id}`, target: "_blank" }, "As a page of its own"),
    h("a", { class: "button", href: `/api/v1/runs/${id}/report.md`, download: `${run.id}.md` }, "Markdown"),
    h("a", { class: "button", href: `/api/v1/runs/${id}/report`, download: `${run.id}.json` }, "JSON"));
}

/** A report of a version that had no data, only text. */
const old = (run, markdown) => [links(run), h("pre", { class: "code" }, markdown)];

function card(run, r) {
  const begun = r.stages.filter((s) => !["not reached", "left out"].includes(s.state));
  return [
    h("div", { class: "row" }, r.state === "partial" && h("span", { class: "chip warn", "data-symbol": "◑" }, r.status || "Not all stages have succeeded"),
      h("span", { class: "dim small" }, "Made ", time(r.made_at)), h("span", { class: "push" }), links(run)),
    r.notes.length > 0 && section("Read this first", h("ul", { class: "plain-list notes" }, r.notes.map((n) => {
      const [word, tone] = NOTES[n.kind] ?? [n.kind, ""];
      return h("li", { class: "break" }, h("span", { class: `chip ${tone}`, "data-symbol": "●" }, word), h("span", null, n.text));
    }))),
    section("Scores", scores(r) ?? h("p", { class: "dim" }, "Nothing was measured.")),
    h("div", { class: "columns" }, section("Time and cost", times(r, begun)), section("System", system(r))),
    section("Beside published models", published(r)),
    section("Stages", begun.map(stageSection)),
    r.settings.length > 0 && folded(`${number(r.settings.length)} settings differ from the d20 speedrun`, table("Settings", ["Setting", "This run", "d20 speedrun"],
      h("tbody", null, r.settings.map((s) => h("tr", null, h("th", { scope: "row", class: "mono break" }, s.name), h("td", { class: "mono break" }, s.value), h("td", { class: "mono break dim" }, s.usual)))))),
    r.lineage.length > 0 && folded("Digests of data, tokenizer and models", table("Digests", ["What", "SHA-256", ["Size", "num"]],
      h("tbody", null, r.lineage.map((l) => h("tr", null, h("th", { scope: "row" }, l.what), h("td", { class: "mono break" }, l.sha256), h("td", { class: "num" }, bytes(l.bytes))))))),
  ];
}

const section = (title, ...body) => h("section", { class: "stack" }, h("h2", null, title), body);
const folded = (title, body) => h("details", { class: "folded" }, h("summary", null, title), body);

/** The stages' wall-clock times as bars of the longest. */
function times(r, begun) {
  const longest = Math.max(...begun.map((s) => s.seconds ?? 0), 1e-9);
  return [
    table("Wall-clock times", ["Stage", ["Of the longest", "meter-cell"], ["Time", "num"]], h("tbody", null, begun.map((s) => h("tr", null, h("th", { scope: "row" }, s.title),
      h("td", { class: "meter-cell" }, h("div", { class: "meter", "aria-hidden": "true" }, h("i", { style: { width: `${(100 * (s.seconds ?? 0)) / longest}%` } }))),
      h("td", { class: "num" }, s.seconds === null ? DASH : seconds(s.seconds)))))),
    h("p", { class: "dim" }, `From the first start to the last end: ${seconds(r.total_seconds)}.`,
      r.cost && ` At ${dollars(r.cost.usd_per_hour)} an hour for ${r.cost.gpus} × ${r.cost.gpu}: ${dollars(r.cost.usd)}.`),
  ];
}

/** The results of the first training stage that recorded this figure: pretraining, unless the run starts from a model. */
const trained = (r, key) => r.stages.map((s) => s.results).find((found) => "device" in found && key in found) ?? {};

function system(r) {
  const on = trained(r, "device");
  const m = r.machine;
  const model = r.recipe.model ?? {};
  const rows = [
    ["Recipe", r.recipe.name],
    ["Model", model.depth && `depth ${model.depth}, ${number(trained(r, "params").params)} parameters, context ${number(model.seq_len)}, vocabulary ${number(r.recipe.tokenizer?.vocab_size)}`],
    ["Trained on", on.device && `${on.world_size ?? 1} × ${on.device}`],
    ["Machine", [m.cpu, m.gpus, m.memory, m.cores && `${m.cores} cores`].filter(Boolean).join(", ")],
    ["Software", [["nanochat", m.nanochat ?? r.code.version], ["Python", m.python], ["torch", m.torch], ["CUDA", m.cuda]].filter(([, v]) => v).map(([k, v]) => `${k} ${v}`).join(", ")],
    ["Seed", r.recipe.seed],
    ["Code", `${number(r.code.lines)} lines in ${number(r.code.files)} files`],
  ].filter(([, value]) => value !== undefined && value !== "" && value !== null);
  return h("dl", { class: "pairs" }, rows.map(([name, value]) => [h("dt", null, name), h("dd", { class: "break" }, String(value))]));
}

function published(r) {
  const of = (name, column) => r.summary.find((row) => row.name === name)?.values[column];
  const { params } = trained(r, "params");
  const estimate = of("CORE", "BASE") === undefined && of("CORE (estimate)", "BASE") !== undefined;
  const ours = { name: "This run", params: params ? number(params, 3) : DASH, core: of("CORE", "BASE") ?? of("CORE (estimate)", "BASE"), bpb: of("Bits per byte, text", "BASE"), chatcore: of("ChatCORE", "SFT"), hardware: estimate ? "CORE is an estimate from a sample" : "", source: "" };
  const figure = (value) => h("td", { class: "num" }, typeof value === "number" ? value.toFixed(4) : DASH);
  return [
    table("Published figures", ["Model", ["Parameters", "num"], ["CORE", "num"], ["Bits per byte", "num"], ["ChatCORE (SFT)", "num"], "Source"],
      h("tbody", null, [ours, ...r.published].map((p) => h("tr", { class: p === ours ? "total" : null }, h("th", { scope: "row" }, p.name), h("td", { class: "num" }, p.params || DASH), figure(p.core), figure(p.bpb), figure(p.chatcore),
        h("td", { class: "small dim" }, [p.hardware, p.source].filter(Boolean).join("; ")))))),
    h("p", { class: "hint" }, "Bits per byte compare only on the same text."),
  ];
}
