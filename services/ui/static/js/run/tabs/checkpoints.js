// The checkpoints of a run, and what can be done with each.
import { del, get, mayOperate, path, post } from "../../api.js";
import { fill, h } from "../../dom.js";
import { DASH, bytes, number, time } from "../../format.js";
import { act, ask, field } from "../../controls.js";
import { files } from "./files.js";
import { kept, table } from "./panel.js";

const KINDS = ["checkpoint", "checkpoint_deleted", "promoted", "demoted"];

export function checkpoints(panel, run, live) {
  const open = new Set(); // ids whose files are shown
  const wrong = new Map(); // id → why the last action was refused
  let focus = ""; // the button that was used last: it has the focus again once the table is new
  let items = [];

  function show(found) {
    items = found;
    if (!items.length) {
      const saving = run.config?.base?.save_every;
      return fill(panel, h("div", { class: "empty dim" }, `No checkpoints yet. A training stage saves one at its end${saving ? `, pretraining every ${number(saving)} steps` : ""}, and when it is paused.`));
    }
    const best = bests(items);
    const total = items.reduce((sum, c) => sum + c.bytes, 0);
    const columns = ["Checkpoint", ["Size", "num"], ["Bits per byte", "num"], "State", "Saved", "Actions"];
    fill(panel,
      h("p", { class: "dim" }, `${number(items.length)} on disk, ${bytes(total)} in all. A pinned or promoted one is never deleted by itself.`),
      h("div", { class: "as-cards" }, table("Checkpoints", columns, [...Map.groupBy(items, (c) => c.stage)].map(([stage, found]) =>
        h("tbody", null, h("tr", { class: "group" }, h("th", { scope: "rowgroup", colspan: columns.length }, live.title(stage))), found.flatMap((c) => rows(c, best)))))));
    if (focus) panel.querySelector(`[data-act="${focus}"]`)?.focus();
    focus = "";
  }

  function rows(c, best) {
    const state = [
      c.final && h("span", { class: "chip", "data-symbol": "■" }, "Final"),
      c.promoted_at && h("span", { class: "chip good", "data-symbol": "★", title: "The inference service offers it" }, "Promoted"),
      c.pinned_at && h("span", { class: "chip active", "data-symbol": "⚑", title: "Garbage collection keeps it" }, "Pinned"),
    ];
    const row = h("tr", { dataset: { id: c.id } },
      h("th", { scope: "row" }, `step ${number(c.step)}`, h("code", { class: "sub" }, c.id)),
      h("td", { class: "num" }, bytes(c.bytes)),
      h("td", { class: "num" }, c.val_bpb === null ? DASH : number(c.val_bpb), best.has(c.id) && h("span", { class: "sub good-text" }, "best")),
      h("td", null, h("div", { class: "row tight" }, state)),
      h("td", { class: "nowrap" }, time(c.created_at, "ago")),
      h("td", null, h("div", { class: "row tight" }, buttons(c))));
    const why = wrong.get(c.id);
    return [row,
      why && h("tr", { class: "detail" }, h("td", { colspan: 6 }, h("p", { class: "wrong", role: "alert" }, why))),
      open.has(c.id) && h("tr", { class: "detail" }, h("td", { colspan: 6 }, files(c)))].filter(Boolean);
  }

  function buttons(c) {
    const step = `step ${number(c.step)}`;
    const button = (label, work, name) => act(label, () => attempt(c, name, work), { class: "small-button", "aria-label": `${label} ${step}`, "data-act": `${c.id}-${name}` });
    const send = (verb) => () => post(path`/checkpoints/${c.id}/${verb}`);
    return [
      c.promoted_at && h("a", { class: "button small-button", href: `/chat?model=${encodeURIComponent(c.id)}`, "aria-label": `Chat with ${step}` }, "Chat"),
      ...(mayOperate() ? [
        c.promoted_at ? button("Demote", send("demote"), "promote") : button("Promote", send("promote"), "promote"),
        c.pinned_at ? button("Unpin", send("unpin"), "pin") : button("Pin", send("pin"), "pin"),
        h("button", { type: "button", class: "small-button", "aria-label": `Resume from… ${step}`, onclick: () => resume(run, c) }, "Resume from…"),
      ] : []),
      h("button", { type: "button", class: "small-button", "aria-expanded": String(open.has(c.id)), "aria-label": `Files of ${step}`, "data-act": `${c.id}-files`, onclick: () => {
        if (!open.delete(c.id)) open.add(c.id);
        focus = `${c.id}-files`;
        show(items);
      } }, "Files"),
      mayOperate() && h("button", { type: "button", class: "small-button danger", "aria-label": `Delete ${step}`, "data-act": `${c.id}-delete`, onclick: () => remove(c) }, "Delete"),
    ];
  }

  /** Do it, and show why it was refused below the row. */
  async function attempt(c, name, work) {
    wrong.delete(c.id);
    focus = `${c.id}-${name}`;
    try {
      await work();
    } catch (err) {
      if (!err.lines) throw err;
      wrong.set(c.id, err.lines.join("\n"));
    }
    await refresh();
  }

  async function remove(c) {
    const sure = await ask({ title: `Delete the checkpoint of step ${number(c.step)}?`, text: `${bytes(c.bytes)} of ${live.title(c.stage)} are freed. It cannot be restored.`, action: "Delete it", danger: true });
    if (sure) await attempt(c, "delete", () => del(path`/checkpoints/${c.id}`));
  }

  const { refresh, stop } = kept(panel, live, {
    what: "the checkpoints", read: async () => (await get(path`/runs/${run.id}/checkpoints`)).items, show, changes: (event) => KINDS.includes(event.kind),
  });
  return stop;
}

/** Of each stage that measured it, the checkpoint with the fewest bits per byte; none where there is no choice. */
function bests(items) {
  const found = new Set();
  for (const group of Map.groupBy(items, (c) => c.stage).values()) {
    const measured = group.filter((c) => c.val_bpb !== null);
    if (measured.length > 1) found.add(measured.reduce((a, b) => (b.val_bpb < a.val_bpb ? b : a)).id);
  }
  return found;
}

/** A new run that continues from the checkpoint. */
async function resume(run, c) {
  const name = field("Name of the new run", h("input", { name: "name", value: `${run.name} from step ${c.step}`.slice(0, 100), maxlength: 100, required: true }));
  let made = null;
  const done = await ask({
    title: `Resume from step ${number(c.step)}`,
    text: "A new run with the recipe, the priority and the budget of this one. Its stage continues from the checkpoint, which is pinned; the stages before it are not run again.",
    action: "Start the run",
    fields: [name],
    run: async (given) => (made = await post(path`/runs/${run.id}/fork`, { from_checkpoint: c.id, name: given.name })),
  });
  if (done) location.assign(`/runs/${encodeURIComponent(made.id)}`);
}
