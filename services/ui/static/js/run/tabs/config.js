// The resolved recipe: as a tree with search, and what differs from the shipped recipe and from the run it was forked from.
import { get, path } from "../../api.js";
import { copyButton } from "../../clipboard.js";
import { fill, h } from "../../dom.js";
import { download } from "../../download.js";
import { changes, flat, inOrderOf, shown } from "../../recipe.js";
import { param, setParam } from "../../address.js";
import { submitLine } from "./command.js";
import { choice, load, table } from "./panel.js";

export function config(panel, run) {
  let over = false;
  let ordered = run.config;
  let against = {}; // id → {title, of}: what the recipe is compared with
  let view = param("config_view") ?? "all";
  const body = h("div", { class: "stack" });
  const search = h("input", { type: "search", placeholder: "Search fields and values", "aria-label": "Search the recipe", value: param("config_q") ?? "", oninput: () => {
    setParam("config_q", search.value.trim());
    show();
  } });

  async function begin() {
    const [recipe, parent, report] = await Promise.all([
      maybe(get(path`/recipes/${run.recipe}`)),
      run.forked_from ? maybe(get(path`/runs/${run.forked_from}`)) : null,
      maybe(get(path`/runs/${run.id}/report`)),
    ]);
    if (over) return;
    const shipped = recipe?.config ?? null;
    ordered = inOrderOf(run.config, shipped ?? report?.report?.recipe ?? {});
    if (shipped) against.recipe = { title: `Changes to recipe ${run.recipe}`, of: shipped };
    if (parent) against.parent = { title: `Changes to ${parent.name}`, of: parent.config };
    const views = [["all", "Whole recipe"], ...Object.entries(against).map(([id, a]) => [id, `${a.title} (${changes(a.of, ordered).length})`])];
    if (!views.some(([id]) => id === view)) view = "all";
    fill(panel, facts(run, report?.report, shipped),
      h("div", { class: "row" }, h("div", { class: "grow" }, search),
        h("div", null, choice("What is shown", views, view, (chosen) => {
          view = chosen;
          setParam("config_view", chosen === "all" ? null : chosen);
          show();
        })),
        copyButton(() => JSON.stringify(ordered, null, 2), "Copy as JSON"),
        h("button", { type: "button", onclick: () => download(`${run.id}.json`, `${JSON.stringify(ordered, null, 2)}\n`, "application/json") }, "Download")),
      command(run, shipped, ordered),
      body);
    show();
  }

  function show() {
    const words = search.value.trim().toLowerCase();
    const fits = (field, ...values) => !words || `${field} ${values.map(shown).join(" ")}`.toLowerCase().includes(words);
    fill(body, view === "all" ? tree(ordered, fits, words) : difference(changes(against[view].of, ordered).filter((c) => fits(c.field, c.before, c.after)), words));
  }

  load(panel, "the recipe", begin);
  return () => {
    over = true;
  };
}

/** The answer, or null if there is none: a recipe of one's own (422: its name is none of a shipped one), a run that was deleted, no report yet. */
const maybe = (asked) => asked.catch((err) => {
  if ([404, 422].includes(err.status)) return null;
  throw err;
});

function facts(run, report, shipped) {
  const machine = report?.machine ?? {};
  const rows = [
    ["recipe", shipped ? run.recipe : `${run.recipe} (not a shipped one)`],
    ["seed", run.config.seed],
    ["nanochat", machine.nanochat],
    ["Python", machine.python],
    ["torch", machine.torch],
    ["CUDA", machine.cuda],
    ["machine", machine.gpus || machine.cpu],
  ].filter(([, value]) => value !== undefined && value !== null && value !== "");
  return h("dl", { class: "facts" }, rows.map(([name, value]) => h("div", null, h("dt", null, name), h("dd", { class: "wrapping" }, String(value)))));
}

function command(run, shipped, ordered) {
  if (!shipped) return h("p", { class: "hint" }, "To start the same run again, download the recipe and use: ", h("code", null, `nanochat submit ${run.id}.json`));
  const line = submitLine(run.recipe, changes(shipped, ordered));
  return h("div", { class: "command" }, h("code", { class: "code", tabindex: "0" }, line), copyButton(line, "Copy command"));
}

/** Sections that fold. While one searches, only what fits is there, and open. */
function tree(recipe, fits, words) {
  const parts = Object.entries(recipe).map(([name, value]) => branch(name, value, name, fits, Boolean(words))).filter(Boolean);
  return parts.length ? h("div", { class: "tree panel" }, parts) : none(words);
}

function branch(name, value, field, fits, open) {
  if (value === null || typeof value !== "object" || Array.isArray(value)) return fits(field, value) ? leaf(name, value, field) : null;
  const parts = Object.entries(value).map(([key, inner]) => branch(key, inner, `${field}.${key}`, fits, open)).filter(Boolean);
  if (!parts.length) return null;
  return h("details", { open: open || !field.includes(".") }, h("summary", null, name, h("span", { class: "dim small" }, ` ${flat(value).length} fields`)), parts);
}

const leaf = (name, value, field) => h("div", { class: "leaf", title: field }, h("span", { class: "key" }, name), h("span", { class: `value mono ${typeof value}` }, listed(value)));

/** A mixture: one use of a task a line, without what is not set. */
const listed = (value) =>
  Array.isArray(value) && value.some((v) => v !== null && typeof v === "object")
    ? value.map((use) => Object.entries(use).filter(([, v]) => v !== null).map(([key, v]) => `${key} ${shown(v)}`).join(", ")).join("\n")
    : shown(value);

function difference(found, words) {
  if (!found.length) return words ? none(words) : h("div", { class: "empty dim" }, "No field differs.");
  return table("Changed fields", ["Field", "Was", "Is"], h("tbody", null, found.map((c) => h("tr", null,
    h("th", { scope: "row", class: "mono break" }, c.field),
    h("td", { class: "mono break removed" }, c.before === undefined ? h("span", { class: "dim" }, "not set") : shown(c.before)),
    h("td", { class: "mono break added" }, c.after === undefined ? h("span", { class: "dim" }, "not set") : shown(c.after))))));
}

const none = (words) => h("div", { class: "empty dim" }, `No field or value has “${words}”.`);
