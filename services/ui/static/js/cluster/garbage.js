// Checkpoints that nothing needs, for admins: look first, then mark them.
import { post } from "../api.js";
import { fill, h } from "../dom.js";
import { bytes, number, time } from "../format.js";
import { act, ask } from "../controls.js";
import { called } from "../stage_names.js";
import { table } from "../table.js";
import { empty, section } from "../parts.js";

const COLUMNS = [
  { id: "run", title: "Run", value: (one) => one.run_name, cell: (one) => h("a", { href: `/runs/${one.run_id}?tab=checkpoints`, class: "break" }, one.run_name) },
  { id: "stage", title: "Stage", value: (one) => called(one.stage), cell: (one) => called(one.stage) },
  { id: "step", title: "Step", num: true, value: (one) => one.step, cell: (one) => number(one.step) },
  { id: "bytes", title: "Size", num: true, descends: true, value: (one) => one.bytes, cell: (one) => bytes(one.bytes) },
  { id: "after", title: "Deleted", value: (one) => one.delete_after, cell: (one) => (one.delete_after ? ["after ", time(one.delete_after)] : "not marked") },
  { id: "path", title: "Folder", cell: (one) => h("code", { class: "break" }, one.path) },
];

export function garbage() {
  const said = h("div", { class: "said", role: "status" });
  const place = h("div", { class: "stack" });
  const list = table({ label: "Checkpoints that nothing needs", parameter: "unneeded", key: (one) => one.id, columns: COLUMNS });
  const go = h("button", { type: "button", class: "danger", hidden: true, onclick: async () => (await mark()) && look() }, "Mark them for deletion");
  let found = { items: [], bytes: 0 };

  async function look() {
    found = await post("/gc", { dry_run: true });
    const unmarked = found.items.filter((one) => !one.delete_after);
    go.hidden = !unmarked.length;
    if (!found.items.length) return fill(place, empty("Every checkpoint is needed", h("p", { class: "dim" }, "Kept are those that are pinned or promoted, the model and the best of each stage, the newest two of an unfinished stage, and all of a running one.")));
    fill(place, h("p", null, `${count(found.items.length)} that nothing needs, ${bytes(found.bytes)} in all`), list.node);
    list.show(found.items);
  }

  const mark = () => ask({
    title: `Mark ${count(found.items.length)} for deletion?`,
    text: `Workers delete their files a day later, which frees ${bytes(found.bytes)}. Until then, pin or promote a checkpoint on its run's page to keep it.`,
    action: "Mark for deletion",
    danger: true,
    run: () => post("/gc", { dry_run: false }),
  });
  return section("Checkpoints that nothing needs", { id: "h-gc", actions: [act("Look for them", look, { place: said }), go] }, said, place);
}

const count = (n) => `${number(n)} ${n === 1 ? "checkpoint" : "checkpoints"}`;
