// What the list shows instead of rows.
import { mayOperate } from "../api.js";
import { h } from "../dom.js";
import { copyButton } from "../clipboard.js";

const SHELL = "nanochat submit tiny --watch";

/** There is no run at all. */
export function noRuns() {
  const curl = `curl -H "Authorization: Bearer $KEY" -H 'Content-Type: application/json' http://${location.hostname}:8000/v1/runs -d '{"recipe": "tiny"}'`;
  return h("div", { class: "panel empty", id: "no-runs" },
    h("h2", null, "No runs yet"),
    h("p", { class: "dim" }, "A run takes a recipe from text to a model that you can chat with. The recipe tiny takes some minutes on a CPU."),
    mayOperate() ? h("a", { class: "button primary", href: "/new?recipe=tiny" }, "Start the first run") : h("p", null, "Your key may look but not start runs. Ask an operator."),
    h("p", { class: "dim" }, "From a shell:"),
    h("pre", { class: "code", tabindex: "0" }, SHELL), copyButton(SHELL),
    h("p", { class: "dim" }, "Or over HTTP:"),
    h("pre", { class: "code", tabindex: "0" }, curl), copyButton(curl));
}

export function noneArchived() {
  return h("div", { class: "panel empty" }, h("h2", null, "No archived runs"), h("p", { class: "dim" }, "Runs that have ended can be archived from the list. They keep their curves, reports and checkpoints."));
}

/** There are runs, but none passes the filters. */
export function noneLeft(total, clear) {
  return h("div", { class: "panel empty" }, h("h2", null, "No run fits these filters"), h("p", { class: "dim" }, `${total.toLocaleString("en")} ${total === 1 ? "run is" : "runs are"} hidden by them.`),
    h("button", { type: "button", onclick: clear }, "Clear filters"));
}
