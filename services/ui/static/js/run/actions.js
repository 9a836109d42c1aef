// What can be done with a run. Each action says beside the buttons what came of it.
import { Problem, del, get, mayOperate, patch, path, post } from "../api.js";
import { fill, h } from "../dom.js";
import { FINISHED, number } from "../format.js";
import { act, ask, field } from "../controls.js";
import { atWork } from "./stages.js";

export function actions(live) {
  const place = h("div", { class: "outcome", role: "status" });
  const row = h("div", { class: "row run-actions" });
  const node = h("div", { class: "run-doing" }, row, place);
  let shown = "";
  let models = [];

  const told = (...text) => fill(place, h("p", { class: "small" }, ...text));

  async function done(request, ...text) {
    await request;
    await live.refresh();
    told(...text);
  }

  function show(run) {
    const over = FINISHED.has(run.status);
    const can = {
      chat: models.length > 0,
      pause: !over && !["PAUSED", "STOPPING"].includes(run.status),
      resume: run.status === "PAUSED",
      retry: run.status !== "CANCELLED" && run.stages.some((s) => ["FAILED", "BACKOFF"].includes(s.status)),
      cancel: !over,
      now: run.status === "STOPPING",
      extend: run.stages.some((s) => live.trains(s.name) && s.started_at),
      archive: over && !run.archived_at,
      unarchive: Boolean(run.archived_at),
      delete: over,
    };
    const state = JSON.stringify(can);
    if (state === shown) return; // the buttons stay, with the focus on them
    shown = state;
    const button = (label, work, props) => act(label, work, { place, ...props });
    const operator = mayOperate();
    fill(row,
      can.chat && h("a", { class: "button primary", href: `/chat?run=${encodeURIComponent(live.id)}` }, "Chat"),
      operator && [
        can.resume && button("Resume", () => done(post(path`/runs/${live.id}/resume`), "Resumed: its stages go on from their last checkpoints."), { class: "primary" }),
        can.retry && button("Retry", () => done(post(path`/runs/${live.id}/retry`, {}), "The failed stages are queued again."), { class: "primary" }),
        can.pause && button("Pause", () => done(post(path`/runs/${live.id}/pause`), "Pausing: the stage at work saves a checkpoint and frees its worker.")),
        h("a", { class: "button", href: `/new?from=${encodeURIComponent(live.id)}` }, "Clone"),
        can.cancel && button("Cancel", () => cancel(live, can.now, done), { class: "danger" }),
        h("details", { class: "menu run-more" }, h("summary", null, "More"), h("div", { class: "menu-items" },
          button("Labels and notes", () => describe(live, done)),
          button("Fork", () => fork(live, told)),
          can.extend && button("Extend", () => extend(live, told)),
          can.archive && button("Archive", () => done(patch(path`/runs/${live.id}`, { archived: true }), "Archived: lists leave it out.")),
          can.unarchive && button("Take out of the archive", () => done(patch(path`/runs/${live.id}`, { archived: false }), "Lists show it again.")),
          can.delete && button("Delete", () => remove(live), { class: "danger" }))),
      ]);
  }

  async function offered() {
    const { items } = await get("/models").catch(() => ({ items: [] }));
    models = items.filter((model) => model.run_id === live.id);
    show(live.run);
  }
  show(live.run);
  offered();
  live.onRun(show);
  live.onEvent((event) => ["promoted", "demoted"].includes(event.kind) && offered());
  return node;
}

function cancel(live, again, done) {
  const busy = atWork(live.run).length > 0;
  const mode = h("select", { name: "mode" }, h("option", { value: "graceful" }, "Save a checkpoint first"), h("option", { value: "now" }, "Stop at once, save nothing"));
  if (again) mode.value = "now";
  return ask({
    title: `Cancel ${live.run.name}?`,
    text: "A cancelled run cannot go on; a fork of it can. To stop it for a while, pause it.",
    fields: busy ? [field("The stage at work", mode)] : [],
    action: "Cancel the run",
    danger: true,
    run: (given) => done(post(path`/runs/${live.id}/cancel`, { mode: given.mode ?? "graceful" }),
      given.mode === "now" || !busy ? "Cancelled." : "Being cancelled: the stage at work saves its checkpoint first."),
  });
}

function describe(live, done) {
  let before = live.run.notes;
  const labels = h("input", { name: "labels", value: live.run.labels.join(" "), maxlength: 4000, autocomplete: "off", spellcheck: "false" });
  const notes = h("textarea", { name: "notes", rows: 6, maxlength: 20000 });
  notes.value = before;
  const shown = { labels: labels.value, notes: notes.value };

  /** Only what was changed is sent: what others change meanwhile stays. */
  async function save() {
    const changes = {
      ...(labels.value === shown.labels ? {} : { labels: labels.value.split(/[\s,]+/).filter(Boolean) }),
      ...(notes.value === shown.notes ? {} : { notes: notes.value, notes_before: before }),
    };
    try {
      await patch(path`/runs/${live.id}`, changes);
    } catch (err) {
      if (err.status !== 409) throw err;
      before = (await get(path`/runs/${live.id}`)).notes;
      throw new Problem(409, `Somebody has changed the notes since you opened this. They are now: ${before ? `“${before}”` : "empty"}. Save again to put yours in their place.`);
    }
  }
  return ask({
    title: "Labels and notes",
    fields: [field("Labels", labels, { hint: "Separated by spaces, such as: baseline team:nlp" }), field("Notes", notes)],
    action: "Save",
    run: () => done(save(), "Saved."),
  });
}

const link = (run) => h("a", { href: path`/runs/${run.id}` }, run.name);

function fork(live, told) {
  const stages = live.run.stages.map((s) => h("option", { value: s.name }, live.title(s.name)));
  const name = h("input", { name: "name", value: `${live.run.name} fork`.slice(0, 100), maxlength: 100, required: true });
  return ask({
    title: `Fork ${live.run.name}`,
    text: "A new run of the same recipe. Stages that succeeded are taken over, not run again. To change the recipe too, use Clone.",
    fields: [field("Name of the new run", name), field("Run again from", h("select", { name: "from" }, h("option", { value: "" }, "only what has not succeeded"), stages))],
    action: "Fork the run",
    run: async (given) => {
      const made = await post(path`/runs/${live.id}/fork`, { name: given.name, from_stage: given.from || null });
      told("Started ", link(made), ".");
    },
  });
}

function extend(live, told) {
  const able = live.run.stages.filter((s) => live.trains(s.name) && s.started_at);
  const reached = Math.max(0, ...able.map((s) => s.progress?.total ?? 0));
  const choice = h("select", { name: "stage" }, able.map((s) => h("option", { value: s.name }, `${live.title(s.name)}${s.progress?.total ? `, now ${number(s.progress.total)} steps` : ""}`)));
  const steps = h("input", { name: "steps", type: "number", min: 1, max: 100000000, step: 1, required: true, value: reached ? 2 * reached : "" });
  return ask({
    title: `Train ${live.run.name} for longer`,
    text: "A new run that goes on from the stage's furthest checkpoint. The stages after it run again.",
    fields: [field("Stage", choice), field("Steps in all", steps)],
    action: "Extend",
    run: async (given) => {
      const made = await post(path`/runs/${live.id}/extend`, { stage: given.stage, steps: Number(given.steps) });
      told("Started ", link(made), ".");
    },
  });
}

async function remove(live) {
  const gone = await ask({
    title: `Delete ${live.run.name} for good?`,
    text: "Its curves, logs, report and checkpoints are deleted. This cannot be undone.",
    action: "Delete the run",
    danger: true,
    run: () => del(path`/runs/${live.id}`),
  });
  if (gone) location.assign("/");
}
