// What the list of runs shows: words to search for, statuses, recipe, label, archived or not. All of it is in the URL.
import { fill, h, say } from "../dom.js";
import { chip, statusWord } from "../format.js";
import { param, params, setParam } from "../address.js";

export const STATUSES = ["RUNNING", "QUEUED", "PAUSED", "SUCCEEDED", "FAILED", "CANCELLED"];

/** @param {() => void} changed is called after each change by hand */
export function filters(changed) {
  const wanted = {
    search: param("search") ?? "",
    status: new Set(params("status").filter((one) => STATUSES.includes(one))),
    recipe: param("recipe") ?? "",
    label: param("label") ?? "",
    archived: param("archived") === "1",
  };

  const search = h("input", { type: "search", name: "search", placeholder: "Search name, id, label, reason  ( / )", "aria-label": "Search runs", autocomplete: "off", spellcheck: "false", value: wanted.search });
  search.addEventListener("input", () => choose("search", search.value.trim()));
  search.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && search.value) {
      search.value = "";
      choose("search", "");
    }
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.target.closest("input, textarea, select, dialog")) return;
    event.preventDefault();
    search.focus();
    search.select();
  });

  const counts = new Map(STATUSES.map((status) => [status, h("span", { class: "count" })]));
  const toggles = STATUSES.map((status) => {
    const button = h("button", { type: "button", class: "toggle", "aria-pressed": String(wanted.status.has(status)), "data-filter": status }, chip(status), counts.get(status));
    button.addEventListener("click", () => {
      const on = !wanted.status.has(status);
      if (on) wanted.status.add(status);
      else wanted.status.delete(status);
      button.setAttribute("aria-pressed", String(on));
      setParam("status", [...wanted.status]);
      changed();
    });
    return button;
  });

  const recipe = picker("recipe", "All recipes");
  const label = picker("label", "All labels");
  const archived = picker("archived", "Active", [["1", "Archived"]]);

  function picker(name, none, options = []) {
    const select = h("select", { name, "aria-label": { recipe: "Recipe", label: "Label", archived: "Active or archived" }[name] });
    const current = () => (name === "archived" ? (wanted.archived ? "1" : "") : wanted[name]);
    select.offer = (pairs) => {
      const all = [["", none], ...pairs];
      if (current() && !all.some(([value]) => value === current())) all.push([current(), current()]);
      const text = JSON.stringify(all);
      if (select.dataset.offered === text) return;
      select.dataset.offered = text;
      fill(select, all.map(([value, title]) => h("option", { value }, title)));
      select.value = current();
    };
    select.offer(options);
    select.addEventListener("change", () => choose(name, name === "archived" ? select.value === "1" : select.value));
    return select;
  }

  function choose(name, value) {
    wanted[name] = value;
    setParam(name, value === true ? "1" : value || null);
    changed();
  }

  function passes(run, { status = true } = {}) {
    if (status && wanted.status.size && !wanted.status.has(run.status)) return false;
    if (wanted.recipe && run.recipe !== wanted.recipe) return false;
    if (wanted.label && !run.labels.includes(wanted.label)) return false;
    if (!wanted.search) return true;
    const text = [run.name, run.id, run.recipe, ...run.labels, statusWord(run.status), run.why ?? run.detail].join("\n").toLowerCase();
    return wanted.search.toLowerCase().split(/\s+/).every((word) => text.includes(word));
  }

  return {
    node: h("div", { class: "filters" }, h("div", { class: "row filter-fields" }, search, recipe, label, archived), h("div", { class: "row toggles", role: "group", "aria-label": "Status" }, toggles)),
    wanted,
    choose(name, value) {
      if (name === "label") label.offer([[value, value]]);
      choose(name, value);
      if (name === "label") label.value = value;
    },
    isSet: () => Boolean(wanted.search || wanted.status.size || wanted.recipe || wanted.label),
    clear() {
      search.value = "";
      wanted.status.clear();
      toggles.forEach((button) => button.setAttribute("aria-pressed", "false"));
      Object.assign(wanted, { search: "", recipe: "", label: "" });
      for (const name of ["search", "status", "recipe", "label"]) setParam(name, null);
      recipe.value = label.value = "";
      changed();
    },
    /** The runs that pass, after the choices and the counts have been brought up to date. */
    apply(runs) {
      const names = (values) => [...new Set(values)].sort().map((value) => [value, value]);
      recipe.offer(names(runs.map((run) => run.recipe)));
      label.offer(names(runs.flatMap((run) => run.labels)));
      const rest = runs.filter((run) => passes(run, { status: false }));
      for (const [status, node] of counts) say(node, String(rest.filter((run) => run.status === status).length));
      return rest.filter((run) => passes(run));
    },
  };
}
