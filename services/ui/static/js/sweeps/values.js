// Values of the fields that a sweep changes.
import { number } from "../format.js";

/** Drawn numbers have 16 digits; 4 tell them apart. */
export function shown(value) {
  if (value === undefined) return "as in the recipe";
  if (typeof value === "number") return Number.isInteger(value) && Math.abs(value) < 1e6 ? String(value) : number(value);
  return typeof value === "string" ? value : JSON.stringify(value);
}
