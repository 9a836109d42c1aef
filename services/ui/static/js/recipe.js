// Recipes: their fields as a list, their values, and what differs between two.

export const isTable = (value) => value !== null && typeof value === "object" && !Array.isArray(value);

/** The value at a dotted path; undefined if there is none. */
export const at = (table, path) => path.split(".").reduce((inner, key) => inner?.[key], table);

/** [[dotted field, value]] of all leaves. A list is one value; an empty table too. */
export function flat(table, prefix = "") {
  return Object.entries(table).flatMap(([key, value]) => (isTable(value) && Object.keys(value).length ? flat(value, `${prefix}${key}.`) : [[`${prefix}${key}`, value]]));
}

/** The same values with the fields in the order of another recipe: the database keeps them in an order of its own. */
export function inOrderOf(table, other) {
  const keys = [...Object.keys(other).filter((key) => key in table), ...Object.keys(table).filter((key) => !(key in other))];
  return Object.fromEntries(keys.map((key) => [key, isTable(table[key]) && isTable(other[key]) ? inOrderOf(table[key], other[key]) : table[key]]));
}

/** Equal as JSON, whatever the order of keys. */
export function same(a, b) {
  if (a === b) return true;
  if (a === null || b === null || typeof a !== "object" || typeof b !== "object" || Array.isArray(a) !== Array.isArray(b)) return false;
  const keys = Object.keys(a);
  return keys.length === Object.keys(b).length && keys.every((key) => same(a[key], b[key]));
}

/** The fields in which `now` differs from `then`, without the description. A field that one of them lacks is undefined there. */
export function changes(then, now) {
  const [before, after] = [new Map(flat(then)), new Map(flat(now))];
  const fields = [...new Set([...after.keys(), ...before.keys()])].filter((field) => !["name", "description"].includes(field));
  return fields.filter((field) => !same(before.get(field), after.get(field))).map((field) => ({ field, before: before.get(field), after: after.get(field) }));
}

/** A value as text: a text as it is, everything else as JSON. */
export const shown = (value) => (typeof value === "string" ? value : JSON.stringify(value));
