// What the processes of the stages print, with the events between the lines: live, searchable, of any length.
import { Problem, get, path } from "../../api.js";
import { fill, h } from "../../dom.js";
import { download } from "../../download.js";
import { time } from "../../format.js";
import { follow } from "../../stream.js";
import { param, setParam } from "../../address.js";
import { Lines, asText, fits, fromEvent, fromLine } from "./log_lines.js";
import { choice, choices, events } from "./panel.js";
import { windowed } from "./windowed.js";
import { KINDS, inWords } from "./words.js";

const ROW = 20;
const BATCH_MS = 80;
const PAGE = 5000; // lines of a request, the most that there may be

export function log(panel, run, live) {
  const lines = new Lines();
  const filter = { words: (param("log_q") ?? "").toLowerCase(), level: param("log_level") ?? "", attempt: param("log_of") ?? "", events: param("log_events") !== "no" };
  let shown = [];
  let following = true;
  let batch = [];
  let timer = 0;
  let known = "";

  const set = (name, value, kept = value) => {
    filter[name] = value;
    setParam(`log_${{ words: "q", attempt: "of" }[name] ?? name}`, kept);
    all();
  };
  const search = h("input", { type: "search", placeholder: "Search the log", "aria-label": "Search the log", value: param("log_q") ?? "", oninput: () => set("words", search.value.toLowerCase(), search.value) });
  const level = choice("Level", [["", "All levels"], ["warning", "Warnings and errors"], ["error", "Errors"]], filter.level, (value) => set("level", value));
  const of = choice("Stage and attempt", [["", "All stages"]], "", (value) => set("attempt", value));
  const inline = h("input", { type: "checkbox", id: "log-events", checked: filter.events, onchange: () => set("events", inline.checked, inline.checked ? null : "no") });
  const tail = h("button", { type: "button", "aria-pressed": "true", onclick: () => follows(!following, true) }, "Follow");
  const count = h("span", { class: "dim small", role: "status" });
  const list = windowed({ row: ROW, render: (row) => render(row, live, filter.words), label: "Log lines", moved: (atEnd) => follows(atEnd, false) });
  const empty = h("p", { class: "dim log-empty" });

  function follows(now, byHand) {
    if (now !== following) tail.setAttribute("aria-pressed", String(now));
    following = now;
    if (now && byHand) list.toEnd();
  }

  function all() {
    shown = lines.shown(filter);
    show();
  }

  function show() {
    list.show(shown);
    if (following) list.toEnd();
    const total = lines.rows.length;
    const [some, every] = [shown.length, total].map((n) => n.toLocaleString("en"));
    count.textContent = shown.length === total ? `${every} lines` : `${some} of ${every} lines`;
    empty.hidden = shown.length > 0;
    empty.textContent = total ? "No line fits the filters." : "Nothing yet: no stage has begun.";
    const attempts = lines.attempts();
    if (known !== attempts.join()) {
      known = attempts.join();
      fill(of, choices([["", "All stages"], ...attempts.map((key) => [key, named(live, key)])]));
      of.value = filter.attempt;
    }
  }

  function take(rows) {
    batch = batch.concat(rows);
    timer ||= setTimeout(() => {
      timer = 0;
      const added = lines.add(batch);
      batch = [];
      if (!added) return all();
      for (const row of added) if (fits(row, filter)) shown.push(row);
      show();
    }, BATCH_MS);
  }

  fill(panel,
    h("div", { class: "row log-bar" }, h("div", { class: "grow" }, search), h("div", null, of), h("div", null, level),
      h("label", { class: "row tight", for: "log-events" }, inline, "Events"), tail,
      h("button", { type: "button", onclick: () => download(`${run.id}.log`, asText(lines.rows)) }, "Download"), count),
    h("div", { class: "log" }, list.node, empty));
  show();
  const stops = [
    read(run, (gap) => lines.gap(gap), (found) => take(found.map(fromLine))),
    events(live, KINDS, (found) => take(found.map((e) => fromEvent(e, inWords(e))))),
    () => clearTimeout(timer),
    list.close,
  ];
  return () => stops.forEach((stop) => stop());
}

/** What is there in pages, which are quick, then what comes as a stream. Returns what stops it. */
function read(run, gap, take) {
  let over = false;
  let stop = null;
  (async () => {
    let after = 0;
    try {
      for (let full = true; full && !over; ) {
        const page = await get(path`/runs/${run.id}/logs`, { after, limit: PAGE });
        page.gaps.forEach(gap);
        take(page.items);
        after = page.next_after;
        full = page.items.length === PAGE;
      }
    } catch (err) {
      if (!(err instanceof Problem)) throw err; // the stream goes on from here once the services answer
    }
    if (!over) stop = follow(path`/runs/${run.id}/logs`, (name, data) => (name === "gap" ? gap(data) : take([data])), { after });
  })();
  return () => {
    over = true;
    stop?.();
  };
}

function named(live, key) {
  const [stage, attempt] = key.split(" ");
  return `${live.short(stage)}, attempt ${attempt}`;
}

function render(row, live, words) {
  return h("div", { class: `line ${row.source} ${row.level}` },
    h("span", { class: "line-time" }, row.source === "gap" ? "" : time(row.t, "clock")),
    h("span", { class: "line-of" }, row.stage ? `${live.short(row.stage)}${row.attempt > 1 ? ` #${row.attempt}` : ""}` : "run"),
    h("span", { class: "line-no" }, row.no === null ? (row.source === "gap" ? "⋯" : "◆") : row.no + 1),
    h("span", { class: "line-text" }, row.level && row.source === "line" ? h("span", { class: "unseen" }, `${row.level}: `) : null, marked(row.text, words)));
}

/** The text with what was searched for marked. */
function marked(text, words) {
  if (!words) return text;
  const parts = [];
  const low = text.toLowerCase();
  let from = 0;
  for (let at = low.indexOf(words); at >= 0 && parts.length < 100; at = low.indexOf(words, from)) {
    parts.push(text.slice(from, at), h("mark", null, text.slice(at, at + words.length)));
    from = at + words.length;
  }
  return [...parts, text.slice(from)];
}
