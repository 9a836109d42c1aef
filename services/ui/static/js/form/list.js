// What was changed, with a way back for each.
import { fill, h } from "../dom.js";
import { at } from "../recipe.js";
import { short } from "./control.js";

/** @param {import("./changes.js").Changes} changes */
export function changeList(changes, { disabled }) {
  const node = h("section", { class: "stack changes", "aria-label": "Changes" });
  changes.addEventListener("change", show);
  show();

  function show() {
    const n = changes.values.size;
    fill(node,
      h("div", { class: "row" }, h("h2", null, n === 1 ? "1 change" : `${n || "No"} changes`), n > 1 && !disabled && h("button", { type: "button", class: "plain push", onclick: () => changes.replace(new Map()) }, "Undo all")),
      n === 0 && h("p", { class: "dim small" }, "The recipe runs as it is."),
      n > 0 && h("ul", { class: "change-list" }, [...changes.values].map(([path, value]) => h("li", null,
        h("code", { class: "break" }, path),
        h("span", { class: "small" }, h("del", { class: "dim" }, short(at(changes.config, path))), " → ", h("strong", { class: "break" }, short(value))),
        !disabled && h("button", { type: "button", class: "plain", "aria-label": `Undo the change of ${path}`, title: "Back to the recipe's", onclick: () => changes.reset(path) }, "↺")))));
  }
  return node;
}
