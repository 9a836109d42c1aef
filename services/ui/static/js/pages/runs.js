// The list of runs.
import { get } from "../api.js";
import { fill, h, keyed } from "../dom.js";
import { between, chip, number, percent, seconds, time, tone } from "../format.js";
import { bar } from "../progress.js";
import { every } from "../repeat.js";

const POLL_MS = 2000;

export async function page(main) {
  const rows = h("tbody");
  const list = h("div", { class: "scroll" }, h("table", null,
    h("thead", null, h("tr", null, ["Run", "Status", "Progress", "Recipe", "Took"].map((name) => h("th", { scope: "col" }, name)), h("th", { scope: "col", class: "num" }, "Begun"))),
    rows));
  const place = h("div", null, list);
  main.append(h("div", { class: "page-head" }, h("h1", null, "Runs")), place);
  await every(POLL_MS, async () => {
    const { items } = await get("/runs", { limit: 200 });
    if (!items.length) return fill(place, none());
    if (!list.isConnected) fill(place, list);
    keyed(rows, items, (run) => run.id, row, update);
  });
}

function row(run) {
  return h("tr", null, h("td", null, h("a", { href: `/runs/${run.id}` }), h("code", { class: "sub" }, run.id)), h("td"), h("td"), h("td", null, run.recipe), h("td"), h("td", { class: "num" }));
}

function update(node, run) {
  const [name, status, progress, , took, begun] = node.children;
  name.firstChild.textContent = run.name;
  fill(status, chip(run.status), run.detail && h("span", { class: "sub break" }, run.detail));
  fill(progress, bar(run.stages_done / run.stages_total, tone(run.status), `${run.stages_done} of ${run.stages_total} stages`),
    h("span", { class: "sub" }, run.current ? `${run.current.name} ${percent(run.current.progress?.total ? run.current.progress.done / run.current.progress.total : NaN)}` : `${number(run.stages_done)} of ${run.stages_total} stages`));
  fill(took, seconds(between(run.started_at, run.finished_at)));
  fill(begun, time(run.started_at ?? run.created_at, "ago"));
}

function none() {
  return h("div", { class: "panel empty", id: "no-runs" }, h("h2", null, "No runs yet"),
    h("p", { class: "dim" }, "The quickest one takes some minutes on a CPU. From a shell:"),
    h("pre", { class: "code" }, "nanochat submit tiny --watch"));
}
