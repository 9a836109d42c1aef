// The history of a run in words, newest first, live.
import { get, isAdmin, path } from "../../api.js";
import { fill, h } from "../../dom.js";
import { date, number, time } from "../../format.js";
import { param, setParam } from "../../address.js";
import { choice, choices, events as stream } from "./panel.js";
import { ACTIONS, GROUPS, KINDS, groupOf, inWords } from "./words.js";

const PAGE = 300; // entries that are shown before one asks for more
const AUDIT_PAGES = 5;
const SHORT = 70; // characters of details that stand in the line
const day = new Intl.DateTimeFormat(undefined, { dateStyle: "full" });

export function events(panel, run, live) {
  const all = []; // {t, group, stage, attempt, what, details, tone, by}, oldest first
  let limit = PAGE;
  let group = param("events_kind") ?? "";
  let stage = param("events_stage") ?? "";
  let over = false;
  const keep = (name, value) => {
    setParam(name, value);
    limit = PAGE;
    show();
  };
  const kinds = choice("Kind of event", [["", "All kinds"], ...Object.entries(GROUPS).map(([id, [title]]) => [id, title]), ...(isAdmin() ? [["requests", "Requests and who sent them"]] : [])], group, (value) => keep("events_kind", (group = value)));
  const stages = choice("Stage", [["", "All stages"]], "", (value) => keep("events_stage", (stage = value)));
  const count = h("span", { class: "dim small", role: "status" });
  const list = h("div", { class: "timeline" });

  function show() {
    const found = all.filter((e) => (!group || e.group === group) && (!stage || (e.stage ?? "run") === stage));
    const shown = found.slice(-limit).reverse();
    count.textContent = found.length === 1 ? "1 event" : `${number(found.length)} events`;
    const days = Map.groupBy(shown, (e) => day.format(date(e.t)));
    fill(list, !found.length && h("div", { class: "empty dim" }, all.length ? "No event is of this kind and stage." : "Nothing has happened yet."),
      [...days].map(([title, entries]) => [h("h3", { class: "day" }, title), h("ol", null, entries.map((e) => entry(e, live)))]),
      found.length > limit && h("button", { type: "button", onclick: () => { limit += PAGE; show(); } }, `Show ${number(Math.min(PAGE, found.length - limit))} older ones`));
  }

  function take(found) {
    add(found.map((e) => ({ t: e.t, group: groupOf(e.kind), stage: e.stage, attempt: e.attempt, ...inWords(e) })));
  }

  function add(entries) {
    all.push(...entries);
    all.sort((a, b) => a.t - b.t);
    const present = run.stages.map((s) => s.name).filter((name) => all.some((e) => e.stage === name));
    fill(stages, choices([["", "All stages"], ["run", "The run as a whole"], ...present.map((name) => [name, live.short(name)])]));
    stages.value = stage;
    show();
  }

  fill(panel, h("div", { class: "row" }, h("div", null, kinds), h("div", null, stages), count), list);
  const stop = stream(live, KINDS, take);
  if (isAdmin()) asked(run).then((found) => !over && found.length && add(found), () => {}); // who asked is an addition: the events are there without it
  return () => {
    over = true;
    stop();
  };
}

function entry(e, live) {
  return h("li", { class: e.tone || null }, h("span", { class: "when" }, time(e.t, "clock")),
    h("div", null, h("span", { class: "what" }, e.stage && h("b", null, live.short(e.stage), /^[a-z(]/.test(e.what) ? " " : ": "), e.what), e.by && h("span", { class: "tag" }, `by ${e.by}`),
      e.details && h("div", { class: `details break ${e.details.length < SHORT ? "short" : ""}` }, e.details)));
}

/** Who asked for what, from the audit trail, which admins may read. */
async function asked(run) {
  const { items } = await get(path`/runs/${run.id}/checkpoints`);
  const ours = new Set([run.id, run.name, ...items.map((c) => c.id)]); // an address may have the run's name instead of its id
  const since = date(run.created_at) - 5000;
  const found = [];
  let before = null;
  for (let page = 0; page < AUDIT_PAGES; page++) {
    const answer = await get("/audit", { limit: 200, before });
    found.push(...answer.items.filter((a) => a.action in ACTIONS && [a.target.run_id, a.target.checkpoint_id, a.made].some((id) => ours.has(id))).map(asEntry));
    before = answer.next_before;
    if (!before || date(answer.items.at(-1).at) < since) break;
  }
  return found.filter((e) => e.t * 1000 >= since);
}

function asEntry(a) {
  const refused = a.outcome && a.outcome !== "done";
  const about = a.target.checkpoint_id ? `Checkpoint ${a.target.checkpoint_id}. ` : "";
  return { t: date(a.at) / 1000, group: "requests", stage: null, what: ACTIONS[a.action], details: `${about}${refused ? `Refused: ${a.outcome.replaceAll("-", " ")}` : ""}`, tone: refused ? "warn" : "", by: a.key_name };
}
