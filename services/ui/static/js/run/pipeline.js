// The stages of a run in one line; a click shows the attempts of one.
import { Problem, get, path } from "../api.js";
import { fill, h, keyed, say, set } from "../dom.js";
import { DASH, FINISHED, between, chip, number, percent, seconds, statusWord, time, tone } from "../format.js";
import { param, setParam } from "../address.js";
import { isAtWork, reached, shareOf, tookOf } from "./stages.js";

const LINES = 12;

export function pipeline(live) {
  const strip = h("ol", { class: "pipeline" });
  const detail = h("div", { class: "panel stage-detail", id: "stage-detail", role: "region", "aria-label": "Attempts of the stage", hidden: true });
  const node = h("section", { class: "stack", "aria-label": "Pipeline" }, strip, detail);
  let open = param("stage");
  let shown = "";

  function show(run) {
    keyed(strip, run.stages, (s) => s.name, (s) => segment(s, live, choose), (item, s) => update(item, s, live, open));
    const stage = run.stages.find((s) => s.name === open);
    detail.hidden = !stage;
    if (!stage) return;
    const state = JSON.stringify([stage.name, stage.status, stage.attempts.map((a) => [a.no, a.status])]);
    if (state !== shown) {
      shown = state;
      fill(detail, attempts(stage, live, () => choose(stage.name)));
    }
  }

  function choose(stage) {
    open = open === stage ? null : stage;
    shown = "";
    setParam("stage", open);
    show(live.run);
  }

  show(live.run);
  live.onRun(show);
  return node;
}

function segment(stage, live, choose) {
  return h("li", null, h("button", { type: "button", "aria-controls": "stage-detail", onclick: () => choose(stage.name) },
    h("span", { class: "pipeline-name" }, h("span", { class: "chip" }, h("span", { class: "pipeline-title" }, inTwoLines(live.short(stage.name))))),
    h("span", { class: "pipeline-sub" }), h("i")));
}

/** A name that wraps before its last word only. */
const inTwoLines = (name) => name.replace(/ (?=.* )/g, "\u00a0");

function update(item, stage, live, open) {
  const [button] = item.children;
  const [name, sub, fill_] = button.children;
  const share = shareOf(stage);
  item.dataset.status = stage.status;
  item.className = `${tone(stage.status)} ${isAtWork(stage) || ["FAILED", "BACKOFF", "PAUSED"].includes(stage.status) ? "wide" : ""}`;
  set(name.firstChild, { "data-symbol": chip(stage.status).dataset.symbol, "data-status": stage.status });
  const { total, eta_s: eta } = stage.progress ?? {};
  const tries = stage.attempts.length > 1 ? ` · ${stage.attempts.length} attempts` : "";
  const took = tookOf(stage);
  const how = isAtWork(stage) && total ? `${reached(stage.progress)}${eta > 1 ? `, ${seconds(eta)} left` : ""}`
    : stage.status === "SUCCEEDED" ? seconds(took) : statusWord(stage.status).toLowerCase();
  say(sub, how + tries);
  fill_.style.width = `${100 * share}%`;
  const why = stage.message || stage.waiting?.why || "";
  const title = live.short(stage.name);
  set(button, {
    "aria-expanded": String(stage.name === open),
    "aria-label": `${title}: ${statusWord(stage.status)}${total ? `, ${percent(share)}` : ""}${took ? `, ${seconds(took)}` : ""}${tries}`,
    title: [`${title}: ${statusWord(stage.status)}`, why].filter(Boolean).join(" — "),
  });
}

function attempts(stage, live, close) {
  const why = stage.message || stage.waiting?.why;
  const log = h("div", { class: "stack" });
  if (stage.attempts.length) lastLines(stage, live, log);
  return [
    h("div", { class: "row" }, h("h2", null, live.title(stage.name)), chip(stage.status), h("code", { class: "dim" }, stage.name), h("button", { type: "button", class: "push plain", "aria-label": "Close the stage", onclick: close }, "✕")),
    why && h("p", { class: stage.status === "FAILED" ? "wrong" : "dim" }, why),
    stage.attempts.length
      ? h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Attempts" }, h("table", null,
        h("thead", null, h("tr", null, ["Attempt", "Status", "Why it ended", "Worker", "Resumed from", "Exit code", "Begun", "Took"].map((x) => h("th", { scope: "col" }, x)))),
        h("tbody", null, stage.attempts.toReversed().map(attempt))))
      : h("p", { class: "dim" }, "It has not begun."),
    log,
  ];
}

function attempt(a) {
  const symbol = { LOST: "FAILED", PREEMPTED: "PAUSED" }[a.status] ?? a.status;
  const word = { LOST: "Worker lost", PREEMPTED: "Stopped" }[a.status];
  const state = chip(symbol);
  if (word) state.textContent = word;
  return h("tr", null, h("td", { class: "num" }, a.no), h("td", null, state),
    h("td", { class: "break attempt-why" }, a.message || DASH, a.reason && h("span", { class: "sub" }, a.reason)),
    h("td", null, a.worker), h("td", null, a.resumed_from_step === null ? "the beginning" : `step ${number(a.resumed_from_step)}`),
    h("td", { class: "num" }, a.exit_code ?? DASH), h("td", { class: "nowrap" }, time(a.started_at)), h("td", { class: "nowrap" }, a.started_at ? seconds(between(a.started_at, a.finished_at)) : DASH));
}

async function lastLines(stage, live, place) {
  const last = stage.attempts.at(-1).no;
  let lines = [];
  try {
    lines = (await get(path`/runs/${live.id}/logs`, { stage: stage.name, attempt: last, limit: LINES, tail: true })).items;
  } catch (err) {
    if (!(err instanceof Problem)) throw err;
    return fill(place, h("p", { class: "wrong" }, err.message));
  }
  if (!lines.length) return fill(place, h("p", { class: "dim small" }, `Attempt ${last} has printed nothing${FINISHED.has(stage.status) ? "" : " so far"}.`));
  fill(place, h("p", { class: "dim small" }, `The last lines that attempt ${last} printed:`), h("pre", { class: "code", tabindex: "0", "aria-label": "Last lines of the log" }, lines.map((l) => l.line).join("\n")));
}
