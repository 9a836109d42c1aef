// What the run's models can do: scores of all stages side by side, CORE's tasks, what is missing and why.
import { get, path } from "../../api.js";
import { fill, h } from "../../dom.js";
import { number } from "../../format.js";
import { COLUMNS, coreTasks, scores, TITLES } from "./scores.js";
import { events, kept, table } from "./panel.js";

const EVALUATIONS = new Set(["base_eval", "chat_eval_mid", "chat_eval_sft", "chat_eval_rl"]);

export function evals(panel, run, live) {
  const partial = new Map(); // stage → Map name → values, of evaluations that are still at work
  let report; // undefined until it is read; null while no stage has begun

  async function read() {
    try {
      return (await get(path`/runs/${run.id}/report`)).report;
    } catch (err) {
      if (err.status !== 404) throw err;
      return null;
    }
  }

  function show(found) {
    report = found;
    const results = (name) => report?.stages.find((s) => s.name === name)?.results ?? {};
    const core = results("base_eval").core;
    const measured = report && scores(report);
    const running = [...partial].filter(([stage]) => report?.stages.find((s) => s.name === stage)?.state === "running");
    const notes = (report?.notes ?? []).filter((n) => n.kind === "missing" || n.kind === "cut short" || /CORE|evaluat/.test(n.text));
    fill(panel,
      measured && section("Scores", measured, h("p", { class: "hint" }, "± is one standard error. ▲ and ▼ mark a change against the model before by more than two of them.")),
      running.map(([stage, found]) => sofar(stage, found)),
      !measured && !running.length && nothing(),
      core?.tasks && section(core.core === null || core.core === undefined ? "Tasks of CORE" : `CORE ${core.core.toFixed(4)}${core.stderr ? ` ± ${core.stderr.toFixed(4)}` : ""}${core.estimate ? " (an estimate from a sample)" : ""}`,
        coreTasks(core), reasons(core)),
      reinforcement(results("rl")),
      passes(report),
      tokenizers(results("tok_eval")),
      notes.length > 0 && section("To know before comparing", h("ul", { class: "plain-list" }, notes.map((n) => h("li", { class: "break" }, n.text)))));
  }

  function nothing() {
    const due = live.run.stages.filter((s) => EVALUATIONS.has(s.name));
    return h("div", { class: "empty dim" }, due.length ? "Nothing is evaluated yet. The first figures come with the end of the first training stage." : "The recipe of this run leaves out all evaluations.");
  }

  const stops = [
    events(live, ["eval"], (found) => {
      for (const { stage, data } of found.filter((e) => EVALUATIONS.has(e.stage))) {
        if (!partial.has(stage)) partial.set(stage, new Map());
        partial.get(stage).set(data.name, data.values);
      }
      if (report !== undefined) show(report);
    }),
    kept(panel, live, { what: "the evaluations", read, show, changes: ({ kind }) => kind === "artifact" || kind === "stage_status" }).stop,
  ];
  return () => stops.forEach((stop) => stop());
}

const section = (title, ...body) => h("section", { class: "stack" }, h("h2", null, title), body);

/** What an evaluation that is still at work has found, in the order in which it found it. */
function sofar(stage, found) {
  const rows = [...found].filter(([, values]) => values && typeof values === "object");
  return section(`${stage.startsWith("base") ? "Base model" : `Chat tasks after ${COLUMNS[stage.split("_").pop().toUpperCase()]}`}, so far`,
    table("Evaluated so far", ["Measured", ["Result", "num"]], h("tbody", null, rows.map(([name, values]) => h("tr", null,
      h("th", { scope: "row" }, TITLES[name] ?? name.replace("core/", "CORE: ").replaceAll("_", " ")),
      h("td", { class: "num" }, Object.entries(values).filter(([key]) => ["accuracy", "centered", "n", "core", "chatcore", "train", "val"].includes(key)).map(([key, value]) => `${key} ${number(value)}`).join(" · ")))))));
}

/** Why there is no CORE, or which of its tasks are missing. */
function reasons(core) {
  const failed = core.failed ?? {};
  const left = (core.missing ?? []).filter((name) => !(name in failed));
  const lines = [
    ...Object.entries(failed).map(([name, why]) => `${name} failed: ${why}`),
    left.length && `Without data on the machine that evaluated: ${left.join(", ")}.`,
    core.partial?.length && `With fewer items than published: ${core.partial.join(", ")}.`,
  ].filter(Boolean);
  if (!lines.length) return null;
  return h("div", { class: "notice warn" }, core.core === null ? "CORE is the mean over 22 tasks, so it has no value here.\n" : "", lines.join("\n"));
}

function reinforcement(rl) {
  const rows = [["pass@1", rl.pass_at_1_before, rl.pass_at_1], ["pass@8", rl.pass_at_8_before, rl.pass_at_8], ["mean reward", rl.first_reward, rl.last_reward]].filter(([, , after]) => typeof after === "number");
  if (!rows.length) return null;
  return section("Reinforcement learning", table("Before and after reinforcement learning", ["Measured", ["Before", "num"], ["After", "num"]],
    h("tbody", null, rows.map(([name, before, after]) => h("tr", null, h("th", { scope: "row" }, name), h("td", { class: "num" }, share(name, before)), h("td", { class: "num" }, share(name, after)))))));
}

const share = (name, value) => (name.startsWith("pass@") && typeof value === "number" ? `${(100 * value).toFixed(1)} %` : number(value));

/** pass@k of tasks that were answered more than once. */
function passes(report) {
  const rows = (report?.stages ?? []).filter((s) => s.name.startsWith("chat_eval")).flatMap((s) =>
    Object.entries(s.results.tasks ?? {}).filter(([, t]) => Object.keys(t).some((key) => key.startsWith("pass@")))
      .map(([name, t]) => [`${TITLES[name] ?? name}, ${COLUMNS[s.name.split("_").pop().toUpperCase()]}`, t]));
  if (!rows.length) return null;
  const ks = [...new Set(rows.flatMap(([, t]) => Object.keys(t).filter((key) => key.startsWith("pass@"))))];
  return section("Several answers to each problem", table("pass@k", ["Task", ...ks.map((k) => [k, "num"])],
    h("tbody", null, rows.map(([name, t]) => h("tr", null, h("th", { scope: "row" }, name), ks.map((k) => h("td", { class: "num" }, typeof t[k] === "number" ? `${(100 * t[k]).toFixed(1)} %` : "–")))))));
}

/** Bytes per token of this tokenizer and of others, by kind of text. */
function tokenizers(found) {
  const rows = Array.isArray(found.table) ? found.table : [];
  if (!rows.length) return null;
  const keys = [...new Set(rows.flatMap(Object.keys))];
  return h("details", null, h("summary", null, "Tokenizer"), table("Tokenizer", keys.map((key, i) => (i ? [key.replaceAll("_", " "), "num"] : key.replaceAll("_", " "))),
    h("tbody", null, rows.map((row) => h("tr", null, keys.map((key, i) => h("td", { class: i ? "num" : null }, number(row[key]))))))));
}
