// The cluster: machines and their workers, what each does, what waits and why, and what takes up the disks.
import { get, isAdmin } from "../api.js";
import { fill, h, keyed } from "../dom.js";
import { number } from "../format.js";
import { garbage } from "../cluster/garbage.js";
import { machine, machines } from "../cluster/machine.js";
import { empty, fact, refill, section } from "../parts.js";
import { queueTable } from "../cluster/queue.js";
import { readStageNames } from "../stage_names.js";
import { every } from "../repeat.js";

const POLL_MS = 3000;

export async function page(main) {
  const facts = h("dl", { class: "facts" });
  const place = h("div", { class: "machines" });
  const lost = h("div", { class: "machines" });
  const lostTitle = h("summary");
  const lostPart = h("details", { hidden: true, class: "stack" }, lostTitle, lost);
  const queue = queueTable();
  main.append(
    h("div", { class: "page-head" }, h("h1", null, "Cluster")), facts,
    section("Machines", { id: "h-machines" }, place, lostPart),
    section("Queue", { id: "h-queue", hint: "Stages that wait for a worker, in the order in which they are taken." }, queue.node));
  if (isAdmin()) main.append(garbage());

  async function refresh() {
    const [{ items: workers }, { items: queued }] = await Promise.all([get("/workers"), get("/queue")]);
    const alive = workers.filter((worker) => worker.status !== "lost");
    const gone = workers.filter((worker) => worker.status === "lost");
    refill(facts, figures(alive, queued));
    if (alive.length) keyed(place, machines(alive), (one) => one.hostname, () => machine(refresh), (node, one) => node.show(one));
    else fill(place, none());
    lostPart.hidden = !gone.length;
    lostTitle.textContent = `${gone.length} lost ${gone.length === 1 ? "worker" : "workers"}, which sent no heartbeat`;
    keyed(lost, machines(gone), (one) => one.hostname, () => machine(refresh), (node, one) => node.show(one));
    queue.show(queued);
  }
  await readStageNames();
  await every(POLL_MS, refresh);
}

function figures(workers, queued) {
  const sum = (of) => workers.reduce((whole, worker) => whole + of(worker), 0);
  const gpus = sum((worker) => worker.gpus);
  return [
    fact("workers", number(workers.length)),
    fact("GPUs", number(gpus)),
    fact("slots in use", `${sum((worker) => worker.runs.length)} of ${sum((worker) => worker.slots)}`),
    fact("draining", number(workers.filter((worker) => worker.status === "draining").length)),
    fact("stages that wait", number(queued.length)),
  ];
}

function none() {
  return empty("No worker is alive",
    h("p", { class: "dim" }, "Runs wait until one is. On a machine that reaches this stack's database:"),
    h("pre", { class: "code", tabindex: "0" }, "python -m services.worker --queue cpu\npython -m services.worker --queue gpu"));
}
