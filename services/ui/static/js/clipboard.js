// Copying a text.
import { h } from "./dom.js";

/** Browsers give pages the clipboard over HTTPS and on localhost only; elsewhere a selection is copied, as older ones did. */
async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text).then(() => true, () => false);
  const area = h("textarea", { class: "unseen", readonly: true, value: text });
  (document.querySelector("dialog[open]") ?? document.body).append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  return done;
}

/** A button that copies `text`, or what it returns, and says so. */
export function copyButton(text, label = "Copy", props = {}) {
  const button = h("button", { type: "button", ...props }, label);
  button.addEventListener("click", async () => {
    button.textContent = (await copy(typeof text === "function" ? text() : text)) ? "Copied" : "The browser refused";
    setTimeout(() => (button.textContent = label), 1500);
  });
  return button;
}
