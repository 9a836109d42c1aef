// One machine of the cluster with its workers, and what each of them does.
import { del, isAdmin, path, put } from "../api.js";
import { fill, h, keyed } from "../dom.js";
import { percent, seconds, time } from "../format.js";
import { bar } from "../progress.js";
import { act, ask } from "../controls.js";
import { disks, gpus } from "./devices.js";
import { mark, refill } from "../parts.js";
import { called } from "../stage_names.js";

const STATE = { idle: ["○", "Idle", ""], busy: ["●", "Busy", "active"], draining: ["◒", "Draining", "warn"], lost: ["✗", "Lost", "bad"] };
const DRAINS = [["FINISH", "run to their end"], ["HAND_OVER", "stop with a checkpoint; another worker goes on with them"]];

/** The workers by machine, in the order of the names. */
export function machines(workers) {
  const found = new Map();
  for (const worker of workers) found.set(worker.hostname, [...(found.get(worker.hostname) ?? []), worker]);
  return [...found].sort(([a], [b]) => a.localeCompare(b, undefined, { numeric: true })).map(([hostname, its]) => ({ hostname, workers: its }));
}

/** A panel for a machine. `node.show(machine)` brings it up to date. `changed` is called after an action. */
export function machine(changed) {
  const name = h("h3", { class: "break" });
  const list = h("div", { class: "stack" });
  const hardware = h("div", { class: "stack said" });
  const node = h("article", { class: "panel stack" }, name, hardware, list);
  node.show = ({ hostname, workers }) => {
    name.textContent = hostname;
    // Workers of one machine tell of the same disks and GPUs.
    refill(hardware, disks(distinct(workers.flatMap((one) => one.disks), (disk) => disk.path)), gpus(distinct(workers.flatMap((one) => one.devices), (gpu) => gpu.index)));
    keyed(list, workers, (worker) => worker.id, () => worker(changed), (one, now) => one.show(now));
  };
  return node;
}

const distinct = (items, key) => [...new Map(items.map((item) => [key(item), item])).values()];

function worker(changed) {
  const head = h("div", { class: "row" });
  const said = h("div", { class: "said" });
  const does = h("div", { class: "stack said" });
  const button = h("div");
  const node = h("section", { class: "worker stack" }, h("div", { class: "worker-head" }, head, button), said, does);
  let drawn = null;
  node.show = (now) => {
    refill(head, mark(...(STATE[now.status] ?? ["?", now.status])), h("strong", { class: "break" }, now.id), h("span", { class: "tag" }, `${now.queue} queue`),
      now.gpus > 0 && h("span", { class: "tag" }, `${now.gpus} × ${now.gpu_name || "GPU"}`),
      h("span", { class: "dim small" }, `${now.runs.length} of ${now.slots} ${now.slots === 1 ? "slot" : "slots"} in use · heard `, heard(now)));
    refill(does, now.runs.map(work));
    if (drawn === now.status || !isAdmin()) return;
    drawn = now.status;
    fill(button, deed(now, changed, said));
  };
  return node;
}

/** Seconds since the last heartbeat; a worker that shut down in good order has none. */
function heard(worker) {
  const when = new Date(worker.heartbeat_at);
  if (when.getTime() === 0) return "never again: it was shut down";
  const s = Math.max(0, (Date.now() - when) / 1000);
  return worker.status === "lost" ? time(worker.heartbeat_at, "ago") : h("span", { title: when.toISOString() }, `${seconds(s)} ago`);
}

function work({ run_id: id, run_name: name, stage, attempt, progress }) {
  if (id === null) return h("p", { class: "dim small" }, "A stage of another project");
  const part = progress?.fraction ?? NaN;
  return h("div", { class: "work" },
    h("div", { class: "row" }, h("a", { href: path`/runs/${id}`, class: "break" }, name), h("span", null, called(stage)), attempt > 1 && h("span", { class: "tag" }, `attempt ${attempt}`),
      h("span", { class: "dim small push" }, [Number.isFinite(part) && percent(part), progress?.eta_s > 0 && `${seconds(progress.eta_s)} left`].filter(Boolean).join(" · "))),
    bar(part, "active", `${called(stage)} of ${name}`));
}

function deed(worker, changed, place) {
  if (worker.status === "lost") return null;
  if (worker.status === "draining") {
    return act("Take stages again", async () => { await del(path`/workers/${worker.id}/drain`); await changed(); }, { place, "aria-label": `Let ${worker.id} take stages again` });
  }
  return h("button", { type: "button", "aria-label": `Drain ${worker.id}`, onclick: async () => (await drain(worker)) && changed() }, "Drain");
}

function drain(worker) {
  return ask({
    title: `Drain ${worker.id}?`,
    text: "It takes no new stages until you end this or it starts again.",
    action: "Drain it",
    fields: [h("fieldset", { class: "choices" }, h("legend", null, "Its running stages"),
      DRAINS.map(([value, text], i) => h("label", null, h("input", { type: "radio", name: "running", value, checked: i === 0 }), ` ${text}`)))],
    run: ({ running }) => put(path`/workers/${worker.id}/drain`, { running }),
  });
}
