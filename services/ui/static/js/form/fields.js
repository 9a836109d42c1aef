// All fields of a recipe: those that people change most, then a group for each section, opened on demand; a search; or as text.
import { fill, h, say } from "../dom.js";
import { asText, fromText } from "./changes.js";
import { control, marked } from "./control.js";

// What people change most, in the order of a run.
const OFTEN = ["model.depth", "model.seq_len", "base.num_iterations", "base.param_data_ratio", "base.total_batch_size", "base.device_batch_size", "mid.enabled", "sft.enabled", "rl.enabled", "seed"];

/**
 * @param {ReturnType<import("./schema.js").groupsOf>} groups
 * @param {import("./changes.js").Changes} changes
 * @param {{disabled: boolean}} options
 * @returns {{node: HTMLElement, complain: (errors: {field: string, message: string}[]) => {field: string, message: string}[]}}
 *   `complain` shows what is wrong beside each field, opens its group, and returns what no field is named by
 */
export function recipeFields(groups, changes, { disabled }) {
  const fields = groups.flatMap((group) => group.fields.map((field) => ({ ...field, group })));
  const often = { name: "often", title: "Changed most often", description: "", fields: OFTEN.map((path) => fields.find((field) => field.path === path)).filter(Boolean) };
  const controls = new Map(); // path → its controls: two for those that are changed most
  let wrong = new Map();

  const sections = [often, ...groups].map(section);
  const search = h("input", { type: "search", placeholder: "Search the fields: warmup, batch, core…", "aria-label": "Search the fields of the recipe", autocomplete: "off", spellcheck: "false" });
  const found = h("p", { class: "dim small", role: "status" });
  search.addEventListener("input", () => seek(search.value.trim().toLowerCase()));
  const form = h("div", { class: "stack" }, search, found, sections.map(({ node }) => node));

  const area = h("textarea", { id: "f-text", rows: 14, class: "mono", spellcheck: "false", disabled, "aria-label": "Changes, one field = value on each line", placeholder: "base.num_iterations = 20\nmodel.depth = 6" });
  const areaWrong = h("p", { class: "wrong", role: "alert", hidden: true });
  const text = h("div", { class: "field", hidden: true }, area, h("p", { class: "hint" }, "One field = value on each line. Values are JSON; a text needs no quotes."), areaWrong);
  area.addEventListener("input", () => {
    const { values, wrong } = fromText(area.value);
    changes.replace(values);
    if (wrong.length) changes.breaks("", wrong.join("\n"));
  });

  const modes = ["Form", "Text"].map((title, i) => h("button", { type: "button", class: "toggle", "aria-pressed": String(i === 0), onclick: () => mode(i) }, title));
  const node = h("div", { class: "stack recipe-fields" }, h("div", { class: "row" }, h("h2", null, "Settings"), h("div", { class: "row toggles push", role: "group", "aria-label": "Write the changes as" }, modes)), form, text);

  function mode(i) {
    modes.forEach((button, at) => button.setAttribute("aria-pressed", String(at === i)));
    form.hidden = i === 1;
    text.hidden = i === 0;
    if (i === 1) {
      area.value = asText(changes.values);
      area.focus();
    } else refresh();
    showText();
  }

  function section(group) {
    const count = h("span", { class: "changed-count" });
    const body = h("div", { class: "fields" });
    const node = h("details", { class: "group", id: `g-${group.name}`, open: group === often }, h("summary", null, h("span", { class: "group-title" }, group.title), count, h("span", { class: "dim small" }, marked(first(group.description)))), body);
    const made = { group, node, body, count, fill: () => body.childElementCount || fill(body, ...rows(group)) };
    node.addEventListener("toggle", () => node.open && made.fill());
    if (node.open) made.fill();
    return made;
  }

  function rows(group) {
    let part = "";
    return group.fields.flatMap((field) => {
      const made = control(group === often ? { ...field, title: inFull(field) } : field, changes, { disabled });
      controls.set(field.path, [...(controls.get(field.path) ?? []), made]);
      if (wrong.has(field.path)) made.wrong(wrong.get(field.path));
      const title = group !== often && field.part !== part && h("h3", { class: "part" }, h("code", null, field.part));
      part = field.part;
      return title ? [title, made] : [made];
    });
  }

  function seek(wanted) {
    const fits = (field) => `${field.path} ${field.title} ${field.description}`.toLowerCase();
    const wordsWanted = wanted.split(/\s+/).filter(Boolean);
    let hits = 0;
    for (const { group, node, body, fill } of sections) {
      const left = new Set(group.fields.filter((field) => wordsWanted.every((word) => fits(field).includes(word))).map((field) => field.path));
      node.hidden = wanted !== "" && (group === often || !left.size);
      if (wanted && !node.hidden) {
        fill();
        node.open = true;
        hits += left.size;
      } else if (!wanted) node.open = group === often || group.fields.some((field) => wrong.has(field.path));
      for (const row of body.children) row.hidden = wanted !== "" && (row.matches("h3") || !left.has(row.querySelector("[name]").name));
    }
    say(found, wanted ? `${hits} of ${fields.length} fields` : "");
  }

  function refresh() {
    for (const made of controls.values()) for (const one of made) one.refresh();
    count();
  }

  function count() {
    for (const { group, count } of sections) {
      const n = group.fields.filter((field) => changes.values.has(field.path)).length;
      say(count, n ? `${n} changed` : "");
    }
  }

  function showText() {
    const told = [changes.broken.get(""), ...[...wrong].map(([path, message]) => `${path}: ${message}`)].filter(Boolean).join("\n");
    areaWrong.textContent = told;
    areaWrong.hidden = !told;
    area.setAttribute("aria-invalid", String(Boolean(told)));
  }

  changes.addEventListener("change", ({ detail: { path, again } }) => {
    if (path === null) refresh();
    for (const made of controls.get(path) ?? []) {
      if (again || !made.contains(document.activeElement)) made.refresh();
      else made.mark();
    }
    if (!text.hidden && again && document.activeElement !== area) area.value = asText(changes.values);
    count();
    showText();
  });

  function complain(errors) {
    const others = [];
    const now = new Map();
    for (const { field: path, message } of errors) {
      const owner = fields.filter((field) => path === field.path || path.startsWith(`${field.path}.`)).sort((a, b) => b.path.length - a.path.length)[0];
      if (!owner) {
        others.push({ field: path, message });
        if (!text.hidden) now.set(path, message);
        continue;
      }
      const inside = path.slice(owner.path.length + 1);
      now.set(owner.path, [now.get(owner.path), inside ? `${inside}: ${message}` : message].filter(Boolean).join("\n"));
    }
    for (const path of wrong.keys()) if (!now.has(path)) for (const made of controls.get(path) ?? []) made.wrong(changes.broken.get(path));
    wrong = now;
    for (const [path, message] of now) {
      const home = sections.find(({ group }) => group.fields.some((field) => field.path === path));
      if (home && form.hidden === false) {
        home.fill();
        home.node.open = true;
        home.node.hidden = false;
      }
      for (const made of controls.get(path) ?? []) {
        made.hidden = false;
        made.wrong(message);
      }
    }
    showText();
    return text.hidden ? others : [];
  }

  return { node, complain };
}

/** "Midtraining: steps", where fields of several groups stand side by side. */
const inFull = ({ group, title }) => (group.name === "general" ? title : `${group.title}: ${/^[A-Z]{2}/.test(title) ? title : title.toLowerCase()}`);

/** The first sentence. */
const first = (text) => text.split(/(?<=\.)\s/)[0];
