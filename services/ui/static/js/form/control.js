// One field of the recipe: its label, its input, what the recipe has, what it means and what is wrong with it.
import { fill, h } from "../dom.js";
import { at } from "../recipe.js";
import { field as labelled } from "../controls.js";
import { parse, read } from "./changes.js";
import { boundsOf } from "./schema.js";

/**
 * @param {import("./schema.js").Field} field
 * @param {import("./changes.js").Changes} changes
 * @returns {HTMLElement & {refresh: () => void, mark: () => void, wrong: (text?: string) => void}}
 *   `refresh` shows the value anew, `mark` only whether it differs
 */
export function control(field, changes, { disabled }) {
  const { type } = field;
  const isChosen = type === "boolean" || type === "choice";
  const isJson = type === "list" || type === "table";
  const bounds = boundsOf(field);
  const input = inputOf(field);
  input.name = field.path;
  input.id = `f-${field.path}-${(control.made = (control.made ?? 0) + 1)}`;
  input.disabled = disabled;
  const title = [field.title, field.unit && h("span", { class: "dim" }, ` (${field.unit})`), h("code", { class: "path" }, field.path)];
  const node = labelled(title, input, { hint: [marked(field.description), bounds && ` ${capital(bounds)}.`] });
  const reset = h("button", { type: "button", class: "plain reset", onclick: () => changes.reset(field.path) });
  node.querySelector("label").after(reset);
  node.classList.add("recipe-field");
  node.classList.toggle("long", isLong(field));

  input.addEventListener(isChosen ? "change" : "input", () => {
    const [value, broken] = given();
    if (broken) changes.breaks(field.path, broken);
    else changes.set(field.path, value);
  });
  input.addEventListener("change", () => !field.nullable && input.value === "" && type !== "string" && changes.reset(field.path));

  function given() {
    const text = input.value.trim();
    if (isChosen) return [JSON.parse(input.value)];
    if (text === "" && field.nullable) return [null];
    if (type === "string") return [text];
    if (text === "") return [at(changes.config, field.path)];
    if (!isJson) return [read(text)];
    try {
      return [parse(text)];
    } catch (err) {
      return [null, `This is not JSON: ${err.message}.`];
    }
  }

  node.refresh = () => {
    const value = changes.value(field.path);
    if (isChosen) input.value = JSON.stringify(value ?? null);
    else input.value = value === null || value === undefined ? "" : isJson ? pretty(value) : String(value);
    node.mark();
  };
  node.mark = () => {
    const changed = changes.values.has(field.path) || changes.broken.has(field.path);
    node.classList.toggle("changed", changed);
    reset.hidden = !changed || disabled;
    fill(reset, `Back to ${short(at(changes.config, field.path))}`);
    reset.setAttribute("aria-label", `${field.title}: back to ${short(at(changes.config, field.path))}`);
    const broken = changes.broken.get(field.path);
    if (broken) node.wrong(broken);
  };
  node.refresh();
  return node;
}

function inputOf(field) {
  const { type, nullable, special, choices } = field;
  if (type === "boolean" || type === "choice") return select([...(type === "boolean" ? [true, false] : choices), ...(nullable ? [null] : [])]);
  if (isLong(field)) return h("textarea", { rows: 3, spellcheck: "false", class: "mono" });
  const keys = special.length ? null : { integer: "numeric", number: "decimal" }[type]; // these keyboards of a phone may lack a minus, and letters
  return h("input", { type: "text", inputmode: keys, autocomplete: "off", spellcheck: "false", placeholder: nullable ? "not set" : null, class: type === "list" ? "mono" : null });
}

/** A value that takes several lines: a table, or a list of them. Which a list is, its default tells. */
const isLong = ({ type, default: usual }) => type === "table" || (type === "list" && !(usual?.length && usual.every((entry) => typeof entry !== "object")));

const select = (options) => h("select", null, options.map((value) => h("option", { value: JSON.stringify(value) }, WORDS.get(value) ?? String(value))));
const WORDS = new Map([[true, "yes"], [false, "no"], [null, "not set"]]);

/** A list with an entry on each line. */
function pretty(value) {
  if (!Array.isArray(value) || !value.some((entry) => entry && typeof entry === "object")) return JSON.stringify(value, null, Array.isArray(value) ? 0 : 1);
  return `[\n${value.map((entry) => `  ${JSON.stringify(without(entry))}`).join(",\n")}\n]`;
}

/** Without what is null: a task in a mixture has many fields that are seldom set. */
const without = (entry) => Object.fromEntries(Object.entries(entry).filter(([, value]) => value !== null));

export function short(value) {
  const text = WORDS.get(value ?? null) ?? (typeof value === "string" ? value : JSON.stringify(value));
  return text.length > 40 ? `${text.slice(0, 39)}…` : text;
}

/** `names` in the text are set as code. */
export const marked = (text) => text.split("`").map((part, i) => (i % 2 ? h("code", null, part) : part));
const capital = (text) => text[0].toUpperCase() + text.slice(1);
