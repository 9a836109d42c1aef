// What a run is called, how it is labelled, its place in the queue, and what it may cost at most.
import { h } from "../dom.js";
import { field } from "../controls.js";

const MOST_LABELS = 50;
const LABEL = /^[A-Za-z0-9][A-Za-z0-9_.:/=-]{0,62}$/;

/** @param {{name?: string, labels?: string[], priority?: number, max_usd?: number, max_hours?: number}} start */
export function terms(start, { disabled }) {
  const input = (name, value, props) => h("input", { name, type: "text", autocomplete: "off", value: value ?? "", disabled, ...props });
  const fields = {
    name: field("Name", input("name", start.name, { maxlength: 100, placeholder: "as the recipe" })),
    labels: field("Labels", input("labels", (start.labels ?? []).join(" "), { spellcheck: "false", placeholder: "none" }), { hint: "Separated by spaces." }),
    max_usd: field("Budget (US dollars)", input("max_usd", start.max_usd, { inputmode: "decimal", placeholder: "no limit" })),
    max_hours: field("Budget (hours)", input("max_hours", start.max_hours, { inputmode: "decimal", placeholder: "no limit" }), { hint: "When a budget is spent, the run saves its work and pauses." }),
    priority: field("Priority", input("priority", start.priority || "", { inputmode: "numeric", placeholder: "0" }), { hint: "−100 to 100. A greater one goes first in the queue." }),
  };
  for (const node of Object.values(fields)) node.input.addEventListener("input", () => node.wrong(null));

  /** What to send, or null after what is wrong was shown beside its field. */
  function read() {
    const found = { labels: fields.labels.input.value.split(/[\s,]+/).filter(Boolean), body: {} };
    let good = true;
    const refuse = (name, text) => {
      fields[name].wrong(text);
      if (good) fields[name].input.focus();
      good = false;
    };
    const wrong = found.labels.find((label) => !LABEL.test(label));
    if (wrong) refuse("labels", `“${wrong}” cannot be a label: begin with a letter or digit; _ . : / = - may follow, 63 characters at most.`);
    if (found.labels.length > MOST_LABELS) refuse("labels", `At most ${MOST_LABELS} labels.`);
    for (const [name, whole, least, most] of [["max_usd", false, 0, 1e9], ["max_hours", false, 0, 1e6], ["priority", true, -101, 100]]) {
      const text = fields[name].input.value.trim().replace("−", "-").replaceAll(",", "").replace(/^\$/, "");
      if (!text) continue;
      const value = Number(text);
      if (!(value > least && value <= most) || (whole && !Number.isInteger(value))) refuse(name, whole ? `A whole number from ${least + 1} to ${most}.` : `A number greater than 0, at most ${most.toLocaleString("en")}.`);
      else found.body[name] = value;
    }
    const name = fields.name.input.value.trim();
    if (name) found.body.name = name;
    return good ? found : null;
  }

  /** Show what the server says beside the fields; returns what is about other fields. */
  function complain(errors) {
    return errors.filter(({ field, message }) => {
      const node = fields[field.split(".")[0]];
      node?.wrong(message);
      return !node;
    });
  }

  /** What is written, as `terms` takes it. */
  const written = () => Object.fromEntries(Object.entries(fields).map(([name, { input }]) => [name, name === "labels" ? input.value.split(/\s+/) : input.value]));

  const { name, labels, max_usd, max_hours, priority } = fields;
  return { node: h("section", { class: "stack", "aria-label": "This run" }, name, labels, h("div", { class: "pair" }, max_usd, max_hours), priority), read, written, complain };
}
