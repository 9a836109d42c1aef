// A choice of one of a few, kept in the page's URL.
import { h } from "./dom.js";
import { param, setParam } from "./address.js";

/**
 * @param {string} label
 * @param {string} parameter of the URL
 * @param {[string, string][]} options value and text; the first is the usual one
 * @param {(value: string) => void} changed
 */
export function choice(label, parameter, options, changed) {
  const select = h("select", { id: `choose-${parameter}`, onchange: () => {
    setParam(parameter, select.value === options[0]?.[0] ? null : select.value);
    changed(select.value);
  } }, options.map(([value, text]) => h("option", { value }, text)));
  const wanted = param(parameter);
  if (options.some(([value]) => value === wanted)) select.value = wanted;
  const node = h("div", { class: "choice" }, h("label", { for: select.id }, label), select);
  return { node, get value() { return select.value; }, set value(value) { select.value = value; } };
}
