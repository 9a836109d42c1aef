// What differs between the recipes of runs, by section.
import { h } from "../dom.js";
import { flat, same, shown } from "../recipe.js";
import { badge, cut } from "./badge.js";

/** @param {{run: any, no: number}[]} found */
export function differences(found) {
  if (found.length < 2) return h("p", { class: "dim" }, "Add a second run to see how their recipes differ.");
  const configs = found.map(({ run }) => new Map(flat(run.config)));
  const paths = [...new Set(configs.flatMap((config) => [...config.keys()]))];
  const differ = paths.filter((path) => configs.some((config) => !same(config.get(path), configs[0].get(path))));
  if (!differ.length) return h("p", { class: "dim" }, "Their recipes are the same.");
  const groups = new Map();
  for (const path of differ) {
    const group = path.includes(".") ? path.split(".")[0] : "recipe";
    groups.set(group, [...(groups.get(group) ?? []), path]);
  }
  return h("div", { class: "scroll fixed", tabindex: "0", role: "region", "aria-label": "Differences between the recipes" }, h("table", null,
    h("thead", null, h("tr", null, h("th", { scope: "col" }, "Field"), found.map((one) => h("th", { scope: "col", class: "num" }, badge(one.no), " ", cut(one.run.name))))),
    [...groups].map(([group, its]) => h("tbody", null,
      h("tr", { class: "group" }, h("th", { scope: "rowgroup", colspan: found.length + 1 }, group)),
      its.map((path) => h("tr", null, h("th", { scope: "row" }, h("code", null, path.includes(".") ? path.slice(group.length + 1) : path)),
        configs.map((config, i) => h("td", { class: `num value${i && !same(config.get(path), configs[0].get(path)) ? " other" : ""}` }, h("span", { class: "break" }, config.has(path) ? (config.get(path) === null ? "not set" : shown(config.get(path))) : "no such field")))))))));
}
