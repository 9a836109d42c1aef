// A table that sorts, keeps the nodes of its rows, shows thousands of items a piece at a time, and can be walked by keyboard.
//
//   const runs = table({ label: "Runs", key: (run) => run.id, columns: [
//     { id: "name", title: "Run", cell: (run) => h("a", { href: `/runs/${run.id}` }, run.name), value: (run) => run.name },
//     { id: "cost", title: "Cost", cell: (run) => dollars(run.usd), value: (run) => run.usd, num: true },
//   ], sort: "-cost" });
//   main.append(runs.node);
//   runs.show(items);          // again whenever something changed: rows change in place
//
// - A cell is a text, a node or a list of them. It is made again only for an item that is another object than before.
// - `value` makes a column sortable: numbers or texts, with null and NaN always last. The sort is in the URL, as ?sort=-cost.
// - `select: true` puts a checkbox in front of each row (Shift for a range): `runs.selected` is the Set of keys, `onselect` hears of it.
// - The first link or button of a row is its handle: ↑ ↓ Home End go from one to the next, Space selects, Enter is the link's own.
// - On a phone each row is a card: cells of the classes wide, status and progress fill its width, others have their title above them,
//   those without a value are left out, and a menu sorts.
import { h, keyed } from "./dom.js";
import { DASH } from "./format.js";
import { morph } from "./morph.js";
import { param, setParam } from "./address.js";

const PIECE = 60; // rows; more are added as one scrolls

/**
 * @template T
 * @typedef {{id: string, title: string, cell: (item: T) => any, value?: (item: T) => any, num?: boolean, descends?: boolean, hint?: string, class?: string}} Column
 *   `descends`: the first click on its title puts the greatest first. `hint` explains the title on hover.
 */

/**
 * @template T
 * @param {{label: string, columns: Column<T>[], key: (item: T) => string, sort?: string, parameter?: string, select?: boolean,
 *   onselect?: () => void, onsort?: () => void, name?: (item: T) => string, row?: (item: T) => Record<string, any>}} options
 *   `sort` is the id of a column, with a minus for descending. `name` is what a checkbox selects. `row` gives attributes of a row.
 * @returns {{node: HTMLElement, show: (items: T[]) => void, selected: Set<string>, clear: () => void, sortBy: (sort: string) => void, sort: () => string}}
 */
export function table({ label, columns, key, sort = "", parameter = "sort", select = false, onselect, onsort, name = key, row }) {
  const selected = new Set();
  const shown = new WeakMap(); // row → the item that it shows
  let items = [];
  let sorted = [];
  let limit = PIECE;
  let anchor = null;
  let order = known(param(parameter)) ? param(parameter) : sort;

  const heads = columns.map(head);
  const all = select && h("input", { type: "checkbox", "aria-label": "Select all", onclick: () => selectAll(all.checked) });
  const body = h("tbody");
  const more = h("button", { type: "button", class: "plain", onclick: grow });
  const foot = h("div", { class: "table-more", hidden: true }, more);
  const grid = h("table", { "aria-label": label }, h("thead", null, h("tr", null, select && h("th", { class: "pick", scope: "col" }, all), heads)), body);
  const menu = h("select", { "aria-label": "Sort by", onchange: () => sortBy(menu.value) },
    columns.filter((column) => column.value).flatMap(({ id, title }) => [h("option", { value: id }, `${title} ▲`), h("option", { value: `-${id}` }, `${title} ▼`)]));
  const node = h("div", { class: "scroll sorted" }, h("div", { class: "sort-menu" }, menu), grid, foot);
  new IntersectionObserver((seen) => seen.some((entry) => entry.isIntersecting) && grow(), { rootMargin: "600px" }).observe(foot);
  body.addEventListener("keydown", walk);
  if (select) body.addEventListener("click", pick);
  mark();

  function known(wanted) {
    return wanted && columns.some((column) => column.value && column.id === wanted.replace(/^-/, ""));
  }

  function head(column) {
    const title = column.value
      ? h("button", { type: "button", title: column.hint, onclick: () => sortBy(next(column)) }, column.title)
      : h("span", { title: column.hint }, column.title);
    return h("th", { scope: "col", class: [column.num && "num", column.class].filter(Boolean).join(" ") || null, "data-column": column.id }, title);
  }

  function next({ id, descends }) {
    if (order === id) return `-${id}`;
    if (order === `-${id}`) return id;
    return descends ? `-${id}` : id;
  }

  function sortBy(wanted) {
    order = wanted;
    limit = PIECE;
    setParam(parameter, order === sort ? null : order);
    mark();
    show(items);
    onsort?.();
  }

  function mark() {
    menu.value = order;
    for (const th of heads) {
      const direction = order === th.dataset.column ? "ascending" : order === `-${th.dataset.column}` ? "descending" : null;
      if (direction) th.setAttribute("aria-sort", direction);
      else th.removeAttribute("aria-sort");
    }
  }

  function show(given) {
    items = given;
    const column = columns.find(({ id }) => id === order.replace(/^-/, ""));
    sorted = column?.value ? inOrder(items, column.value, order.startsWith("-")) : [...items];
    draw();
  }

  function draw() {
    keyed(body, sorted.slice(0, limit), key, create, update);
    foot.hidden = sorted.length <= limit;
    more.textContent = `Show more of ${sorted.length.toLocaleString("en")}`;
    if (select) {
      const there = new Set(items.map(key));
      let gone = false;
      for (const id of selected) if (!there.has(id)) gone = selected.delete(id);
      if (gone) onselect?.();
      markSelected();
    }
  }

  function grow() {
    if (sorted.length <= limit) return;
    limit += PIECE;
    draw();
  }

  function create() {
    return h("tr", null, select && h("td", { class: "pick" }), columns.map((column) => h("td", { class: [column.num && "num", column.class].filter(Boolean).join(" ") || null, "data-title": column.title, "data-column": column.id })));
  }

  function update(tr, item) {
    if (shown.get(tr) === item) return;
    if (select && !shown.has(tr)) tr.firstChild.append(h("input", { type: "checkbox", "aria-label": `Select ${name(item)}` }));
    shown.set(tr, item);
    for (const [attribute, value] of Object.entries(row?.(item) ?? {})) tr.setAttribute(attribute, value);
    columns.forEach((column, i) => {
      const td = tr.children[i + (select ? 1 : 0)];
      const made = h("td", null, column.cell(item));
      for (const name of ["class", "data-title", "data-column"]) if (td.hasAttribute(name)) made.setAttribute(name, td.getAttribute(name));
      made.toggleAttribute("data-empty", ["", DASH].includes(made.textContent) && !made.firstElementChild?.matches("[role]"));
      morph(td, made);
    });
  }

  // -- selection --

  function markSelected() {
    for (const tr of body.children) {
      const chosen = selected.has(tr.dataset.key);
      tr.classList.toggle("chosen", chosen);
      tr.firstChild.firstChild.checked = chosen;
    }
    all.checked = items.length > 0 && selected.size === items.length;
    all.indeterminate = selected.size > 0 && !all.checked;
  }

  function selectAll(on) {
    selected.clear();
    if (on) for (const item of items) selected.add(key(item));
    changed();
  }

  function pick(event) {
    const box = event.target.closest("td.pick");
    if (!box) return;
    const tr = box.parentElement;
    const on = event.target === box ? !selected.has(tr.dataset.key) : event.target.checked;
    const from = event.shiftKey && anchor?.isConnected ? anchor : tr;
    const rows = [...body.children];
    const [a, b] = [rows.indexOf(from), rows.indexOf(tr)].sort((x, y) => x - y);
    for (const one of rows.slice(a, b + 1)) choose(one.dataset.key, on);
    anchor = tr;
    changed();
  }

  function choose(id, on) {
    if (on) selected.add(id);
    else selected.delete(id);
  }

  function changed() {
    markSelected();
    onselect?.();
  }

  // -- keyboard --

  function walk(event) {
    const tr = event.target.closest("tr");
    if (!tr || event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input:not([type=checkbox]), select, textarea")) return;
    const to = { ArrowDown: tr.nextElementSibling, ArrowUp: tr.previousElementSibling, Home: body.firstElementChild, End: body.lastElementChild }[event.key];
    if (to) {
      to.querySelector("td:not(.pick) :is(a, button)")?.focus();
      event.preventDefault();
    } else if (select && event.key === " " && event.target.matches("a")) {
      choose(tr.dataset.key, !selected.has(tr.dataset.key));
      anchor = tr;
      changed();
      event.preventDefault();
    }
  }

  return { node, show, selected, sortBy, sort: () => order, clear: () => selectAll(false) };
}

/** Sorted without changing `items`; equal ones keep their order, and those without a value come last in both directions. */
function inOrder(items, value, descending) {
  const keys = new Map(items.map((item) => [item, value(item)]));
  const missing = (x) => x === null || x === undefined || Number.isNaN(x);
  return [...items].sort((a, b) => {
    const [x, y] = [keys.get(a), keys.get(b)];
    if (missing(x) || missing(y)) return missing(x) - missing(y);
    const by = typeof x === "string" ? x.localeCompare(y, "en", { numeric: true, sensitivity: "base" }) : x - y;
    return descending ? -by : by;
  });
}
