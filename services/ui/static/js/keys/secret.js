// The secret of a new key or webhook.
import { copyButton } from "../clipboard.js";
import { fill, h } from "../dom.js";

/** Show it in `place`, selected. It is on the page until the visitor has kept it, and nowhere else. */
export function showSecret(place, { name, secret }) {
  const value = h("input", { type: "text", readonly: true, value: secret, class: "mono", "aria-label": `Secret of ${name}`, onfocus: (event) => event.target.select() });
  fill(place, h("div", { class: "notice good stack" },
    h("p", null, h("strong", { class: "break" }, name), " is made. This is its secret. It is shown only this once."),
    h("div", { class: "row secret" }, value, copyButton(secret), h("button", { type: "button", onclick: () => fill(place) }, "I have kept it"))));
  value.select();
}
