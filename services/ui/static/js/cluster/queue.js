// The stages that wait for a worker.
import { fill, h } from "../dom.js";
import { seconds } from "../format.js";
import { called } from "../stage_names.js";
import { table } from "../table.js";
import { empty } from "../parts.js";

const COLUMNS = [
  { id: "position", title: "Turn", num: true, value: (one) => one.position, cell: (one) => `${one.position}.` },
  { id: "run", title: "Run", value: (one) => one.run_name, cell: (one) => h("a", { href: `/runs/${one.run_id}`, class: "break" }, one.run_name) },
  { id: "stage", title: "Stage", value: (one) => called(one.stage), cell: (one) => called(one.stage) },
  { id: "queue", title: "Queue", value: (one) => one.queue, cell: (one) => one.queue },
  { id: "priority", title: "Priority", num: true, descends: true, hint: "A greater one goes first", value: (one) => one.priority, cell: (one) => one.priority },
  { id: "waits", title: "Waits", num: true, descends: true, value: (one) => waits(one), cell: (one) => seconds(waits(one)) },
  { id: "why", title: "Why", class: "wide", cell: (one) => h("span", { class: "break" }, linked(one.why)) },
];

const waits = (one) => (Date.now() - new Date(one.queued_at)) / 1000;

/** The reason in words, with a link for every run that it names. */
function linked(text) {
  return text.split(/(r_[0-9a-f]{16})/).map((part, i) => (i % 2 ? h("a", { href: `/runs/${part}` }, part) : part));
}

export function queueTable() {
  const list = table({ label: "Queue", parameter: "queue", sort: "position", key: (one) => `${one.run_id}/${one.stage}`, columns: COLUMNS });
  const node = h("div", null);
  return {
    node,
    show(items) {
      if (!items.length) return node.querySelector(".empty") ? null : fill(node, empty("Nothing waits", h("p", { class: "dim" }, "Every stage that could begin has a worker.")));
      if (!list.node.isConnected) fill(node, list.node);
      list.show(items);
    },
  };
}
