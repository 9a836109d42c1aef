// Stands for a whole page where what it would show is not there.
import { h } from "./dom.js";

/** `to` is where to go on: its address and its name. */
export const absent = (title, text, [href, label]) => h("div", { class: "panel empty", role: "alert" },
  h("h1", null, title), h("p", { class: "dim break" }, text), h("a", { class: "button primary", href }, label));
