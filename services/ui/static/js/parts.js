// Pieces of pages.
import { fill, h } from "./dom.js";
import { morph } from "./morph.js";

/** Show `children` in `node`, and touch only what differs. */
export function refill(node, ...children) {
  morph(node, fill(node.cloneNode(false), ...children));
}

/** A state as symbol, word and colour, where it is not one of a run's. */
export const mark = (symbol, word, tone = "") => h("span", { class: `chip ${tone}`, "data-symbol": symbol }, word);

export const fact = (name, value) => h("div", null, h("dt", null, name), h("dd", null, value));

/** A part of a page under a heading, with what can be done about it at its right. */
export function section(title, { id, actions, hint } = {}, ...children) {
  return h("section", { class: "stack", "aria-labelledby": id },
    h("div", { class: "row" }, h("h2", { id }, title), hint && h("p", { class: "dim small" }, hint), actions && h("div", { class: "row push" }, actions)),
    children);
}

export const empty = (title, ...children) => h("div", { class: "panel empty" }, h("h3", null, title), children);
