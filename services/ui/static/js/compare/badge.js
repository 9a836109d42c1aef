// How a run is known in a comparison.
import { h } from "../dom.js";

/** The letter and the colour of a run. */
export const badge = (no) => h("span", { class: "badge", style: { background: `var(--c${no + 1})` } }, letter(no));

export const letter = (no) => String.fromCharCode(65 + no);

export const cut = (name, most = 28) => (name.length > most ? `${name.slice(0, most - 1)}…` : name);
