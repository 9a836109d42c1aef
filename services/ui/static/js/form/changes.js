// What a run is to have other than its recipe. Only that is sent.
import { at, isTable } from "../recipe.js";

/** Whether two values of a recipe are the same. In a table, null is the same as nothing. */
export const same = (a, b) => JSON.stringify(sorted(a)) === JSON.stringify(sorted(b));

function sorted(value) {
  if (Array.isArray(value)) return value.map(sorted);
  if (isTable(value)) return Object.fromEntries(Object.keys(value).filter((key) => value[key] !== null).sort().map((key) => [key, sorted(value[key])]));
  return value ?? null;
}

/** The values of fields that differ from `config`, by path. Sends `change` after each change. */
export class Changes extends EventTarget {
  config = {};
  /** @type {Map<string, any>} */
  values = new Map();
  /** Texts that are not values, by path: what is wrong with them. */
  broken = new Map();

  /** Another recipe. Changes that it has already are dropped. */
  start(config, values = this.values) {
    this.config = config;
    this.broken.clear();
    this.values = new Map([...values].filter(([path, value]) => !same(value, at(config, path))));
    this.#tell(null);
  }

  value(path) {
    return this.values.has(path) ? this.values.get(path) : at(this.config, path);
  }

  set(path, value) {
    this.broken.delete(path);
    if (same(value, at(this.config, path))) this.values.delete(path);
    else this.values.set(path, value);
    this.#tell(path);
  }

  breaks(path, why) {
    this.broken.set(path, why);
    this.#tell(path);
  }

  reset(path) {
    this.values.delete(path);
    this.broken.delete(path);
    this.#tell(path, true);
  }

  replace(values) {
    this.broken.clear();
    this.values = new Map([...values].filter(([path, value]) => !same(value, at(this.config, path))));
    this.#tell(null);
  }

  get overrides() {
    return Object.fromEntries(this.values);
  }

  /** `path` null: any of them; `again`: what its field shows is out of date. */
  #tell(path, again = path === null) {
    this.dispatchEvent(new CustomEvent("change", { detail: { path, again } }));
  }
}

/** The overrides that make `config` of `base`: a path for each field that differs. Values of `fields` (paths) are taken as a whole. */
export function difference(base, config, fields, path = "") {
  const found = new Map();
  for (const [key, value] of Object.entries(config)) {
    const here = path ? `${path}.${key}` : key;
    const old = base?.[key];
    if (!fields.has(here) && isTable(value) && isTable(old)) for (const pair of difference(old, value, fields, here)) found.set(...pair);
    else if (!same(old, value)) found.set(here, value);
  }
  return found;
}

/** Changes as text, `field = value` on each line. */
export const asText = (values) => [...values].map(([path, value]) => `${path} = ${JSON.stringify(value)}`).join("\n");

/**
 * The same, read. A value is JSON, or else text, as in libs/client/overrides.py.
 * @returns {{values: Map<string, any>, wrong: string[]}} `wrong` names the lines that cannot be read
 */
export function fromText(text) {
  const values = new Map();
  const wrong = [];
  text.split("\n").forEach((line, i) => {
    const told = line.trim();
    if (!told || told.startsWith("#")) return;
    const [, path, value] = told.match(/^([^=]*?)\s*=\s*(.*)$/) ?? [];
    if (!path) wrong.push(`Line ${i + 1}: write field = value, such as base.num_iterations = 20.`);
    else if (!value) wrong.push(`Line ${i + 1}: ${path} has no value. For an empty text write ${path} = "".`);
    else values.set(path, read(value));
  });
  return { values, wrong };
}

/** JSON has no infinity: 1e400 would be sent as null, which means that the field is not set. As a text it is refused. */
const finite = (value) => (typeof value === "number" && !Number.isFinite(value) ? String(value) : value);

/** Raises SyntaxError. */
export const parse = (text) => JSON.parse(text, (_, value) => finite(value));

/** A value as people write it: JSON, a number with , or _ between its digits, or else the text itself. */
export function read(text) {
  try {
    return parse(text);
  } catch {
    const digits = text.replace(/(?<=\d)[_, ](?=\d{3}(\D|$))/g, "");
    return /^[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$/i.test(digits) ? finite(Number(digits)) : text;
  }
}
