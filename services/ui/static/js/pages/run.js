// The page of one run.
import { get, mayOperate, path, post } from "../api.js";
import { fill, h, keyed } from "../dom.js";
import { FINISHED, between, chip, dollars, seconds, time, tone } from "../format.js";
import { bar } from "../progress.js";
import { every } from "../repeat.js";
import { ask } from "../shell.js";

const POLL_MS = 2000;

export async function page(main) {
  const id = decodeURIComponent(location.pathname.split("/")[2]);
  const head = h("div", { class: "page-head" });
  const facts = h("dl", { class: "facts" });
  const rows = h("tbody");
  main.append(head, facts, h("div", { class: "scroll" }, h("table", null,
    h("thead", null, h("tr", null, ["Stage", "Status", "Progress", "Why"].map((x) => h("th", { scope: "col" }, x)), h("th", { class: "num", scope: "col" }, "Time"))), rows)));
  await every(POLL_MS, async () => {
    const run = await get(path`/runs/${id}`);
    document.title = `${run.name} · nanochat`;
    fill(head, h("h1", { class: "break" }, run.name), chip(run.status), h("code", { class: "dim" }, run.id),
      mayOperate() && !FINISHED.has(run.status) && h("button", { type: "button", class: "danger push", onclick: () => cancel(run) }, "Cancel"));
    fill(facts, fact("stages done", `${run.stages.filter((s) => s.status === "SUCCEEDED").length} of ${run.stages.length}`),
      fact("time", seconds(between(run.started_at, run.finished_at))), fact("cost so far", dollars(run.budget.used_usd)), fact("begun", time(run.started_at)));
    keyed(rows, run.stages, (s) => s.name, () => h("tr", null, h("td"), h("td"), h("td"), h("td", { class: "break" }), h("td", { class: "num" })), stage);
  });
}

const fact = (name, value) => h("div", null, h("dt", null, name), h("dd", null, value));

function stage(node, s) {
  const fraction = s.status === "SUCCEEDED" ? 1 : s.progress?.total ? s.progress.done / s.progress.total : 0;
  const values = [s.name, chip(s.status), bar(fraction, tone(s.status), s.name), [s.reason, s.message].filter(Boolean).join(": "), seconds(between(s.started_at, s.finished_at))];
  values.forEach((value, i) => fill(node.children[i], value));
}

function cancel(run) {
  return ask({ title: `Cancel ${run.name}?`, text: "Its stages save their work and end. A cancelled run cannot go on; a fork of it can.", action: "Cancel the run", danger: true,
    run: () => post(path`/runs/${run.id}/cancel`, {}) });
}
