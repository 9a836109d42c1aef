// Files that the visitor keeps.
import { h } from "./dom.js";

/** @param {string | Blob} content */
export function download(name, content, type = "text/plain") {
  const href = URL.createObjectURL(new Blob([content], { type }));
  h("a", { href, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(href), 60_000);
}
