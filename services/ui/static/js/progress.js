// A bar of progress with a name for those who cannot see it.
import { h } from "./dom.js";
import { percent } from "./format.js";

/** @param {number} fraction 0 to 1; NaN while it is unknown */
export function bar(fraction, tone, label) {
  const known = Number.isFinite(fraction);
  return h(
    "div",
    { class: `bar ${tone}`, role: "progressbar", "aria-label": label, "aria-valuemin": 0, "aria-valuemax": 100, "aria-valuenow": known ? Math.round(100 * fraction) : null, title: known ? percent(fraction) : null },
    h("i", { style: { width: known ? `${Math.min(100, 100 * fraction)}%` : "0" } }),
  );
}
