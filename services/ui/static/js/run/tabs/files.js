// The files of a checkpoint: sizes, digests and downloads.
import { Problem, get, path } from "../../api.js";
import { fill, h } from "../../dom.js";
import { bytes } from "../../format.js";
import { copyButton } from "../../clipboard.js";

/** @returns a node that fills itself */
export function files(checkpoint) {
  const node = h("div", { class: "stack files" }, h("p", { class: "dim", role: "status" }, "Loading the files …"));
  get(path`/checkpoints/${checkpoint.id}/files`).then(
    ({ items, intact }) => fill(node, !intact && h("p", { class: "wrong", role: "alert" }, "Some files are missing or have another size than their manifest says."), list(checkpoint, items), note(checkpoint)),
    (err) => {
      if (!(err instanceof Problem)) throw err;
      fill(node, h("p", { class: "wrong", role: "alert" }, err.lines.join("\n")));
    },
  );
  return node;
}

function list(checkpoint, items) {
  return h("ul", { class: "plain-list file-list" }, [...items, { path: "manifest.json", state: "ok" }].map((file) => h("li", null,
    file.state === "ok" ? h("a", { href: address(checkpoint, file), download: file.path.split("/").pop() }, file.path) : h("span", { class: "bad-text" }, `${file.path}: ${file.state}`),
    file.bytes !== undefined && h("span", { class: "num" }, bytes(file.bytes)),
    file.sha256 && h("span", { class: "row tight" }, h("code", { class: "dim", title: `sha256 ${file.sha256}` }, `${file.sha256.slice(0, 16)}…`), copy(file.sha256, file.path)))));
}

const address = (checkpoint, file) => `/api/v1/checkpoints/${encodeURIComponent(checkpoint.id)}/files/${file.path.split("/").map(encodeURIComponent).join("/")}`;

function copy(sha256, name) {
  const button = copyButton(sha256, "Copy");
  button.classList.add("small-button");
  button.setAttribute("aria-label", `Copy the SHA-256 of ${name}`);
  return button;
}

const note = (checkpoint) => h("p", { class: "hint break" }, "On the machine that wrote it: ", h("code", null, checkpoint.path));
