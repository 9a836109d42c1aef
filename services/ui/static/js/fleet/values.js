// Values of recipe fields: as text, compared, and flattened.
import { number } from "../format.js";

export const UNSET = "as in the recipe";

export function shown(value) {
  if (value === undefined) return UNSET;
  if (typeof value === "number") return Number.isInteger(value) && Math.abs(value) < 1e6 ? String(value) : number(value);
  return typeof value === "string" ? value : JSON.stringify(value);
}

export const same = (a, b) => a === b || JSON.stringify(a) === JSON.stringify(b);

/** A recipe as a map from dotted paths to values that are no objects. Lists are values. */
export function flat(config, prefix = "", into = new Map()) {
  for (const [name, value] of Object.entries(config)) {
    const path = prefix ? `${prefix}.${name}` : name;
    if (value !== null && typeof value === "object" && !Array.isArray(value) && Object.keys(value).length) flat(value, path, into);
    else into.set(path, value);
  }
  return into;
}
