// The dialog that makes a webhook.
import { post } from "../api.js";
import { ask, field } from "../controls.js";
import { h } from "../dom.js";
import { GROUPS } from "../run/tabs/words.js";

const FORMATS = [["json", "JSON, signed"], ["slack", "text for Slack or Mattermost"]];
const USUAL = "run_status";

/** Resolves to the new webhook with its secret, or to null. */
export async function makeWebhook() {
  let made = null;
  const kinds = Object.values(GROUPS).map(([title, its]) => h("fieldset", { class: "choices" }, h("legend", null, title),
    its.map((kind) => h("label", null, h("input", { type: "checkbox", name: "kind", value: kind, checked: kind === USUAL }), ` ${kind.replaceAll("_", " ")}`))));
  await ask({
    title: "Make a webhook",
    text: "It gets the events of this project from now on, each as a request to an address of yours.",
    action: "Make the webhook",
    fields: [
      field("Name", h("input", { name: "name", required: true, maxlength: 100, autocomplete: "off" }), { hint: "Whom or what it tells, such as alerts of the team." }),
      field("Address", h("input", { name: "url", type: "url", required: true, autocomplete: "off", placeholder: "https://example.com/hook" }), { hint: "Begins with https://. It is not shown again: only its host is." }),
      field("Form", h("select", { name: "format" }, FORMATS.map(([value, text]) => h("option", { value }, text)))),
      h("details", { class: "folded" }, h("summary", null, "Which events"), h("div", { class: "event-kinds" }, kinds)),
      field("Only of one run", h("input", { name: "run", maxlength: 100, autocomplete: "off" }), { hint: "Its id or name. Leave it empty for all runs of the project." }),
      field("Only of runs with the labels", h("input", { name: "labels", autocomplete: "off" }), { hint: "Separated by commas. Leave it empty for all." }),
    ],
    run: async ({ name, url, format, run, labels }) => {
      const asked = kinds.flatMap((group) => [...group.querySelectorAll(":checked")].map((box) => box.value));
      made = await post("/webhooks", { name, url, format, kinds: asked, run: run.trim() || null, labels: labels.split(",").map((label) => label.trim()).filter(Boolean) });
    },
  });
  return made;
}
