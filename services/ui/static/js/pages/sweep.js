// One sweep: what its runs change, what they reach, and what they cost.
import { absent } from "../absent.js";
import { get, mayOperate, path } from "../api.js";
import { fill, h } from "../dom.js";
import { download } from "../download.js";
import { DASH, dollars, number, time } from "../format.js";
import { fact, refill, section } from "../parts.js";
import { chosenRuns } from "../sweeps/chosen.js";
import { parallel } from "../sweeps/parallel.js";
import { sweepCurves } from "../sweeps/curves.js";
import { runsTable } from "../sweeps/runs.js";
import { counts, deeds, kind, progress, status } from "../sweeps/state.js";
import { every } from "../repeat.js";
import { named, param, setParam } from "../address.js";
import { act } from "../controls.js";

const POLL_MS = 3000;

export async function page(main) {
  const id = named();
  const catalog = await get("/catalog");
  const head = h("div", { class: "page-head" });
  const said = h("div", { class: "said", role: "status" });
  const facts = h("dl", { class: "facts" });
  const bars = h("div");
  const lines = h("div", { class: "said" });
  const table = h("div", { class: "stack" });
  const metrics = picker(catalog, () => refresh());
  let drawn = null; // what the parts that are made anew were made of
  let parts = null;
  let sweep = null;
  let stop = () => {};
  const chosen = chosenRuns(() => {
    parts.picture?.update();
    showRuns();
  });

  const curves = sweepCurves(id);
  const csv = act("Table as CSV", () => saveCsv(path`/sweeps/${id}`, { metric: param("metric") }, `${id}.csv`), { place: said });
  const points = act("Curves as CSV", () => saveCsv(path`/sweeps/${id}/curves`, { metric: param("metric") }, `${id}-curves.csv`), { place: said });
  main.append(head, said, bars, facts,
    section("Time to quality", { id: "h-curves", actions: [metrics, points] }, curves.node),
    section("Runs", { id: "h-runs", actions: [csv] }, table, lines, chosen.node));

  async function refresh() {
    try {
      sweep = await get(path`/sweeps/${id}`, { metric: param("metric") });
    } catch (err) {
      if (!err.missing) throw err;
      return missing();
    }
    document.title = `${sweep.name} · nanochat`;
    const info = catalog.metrics.find((metric) => metric.key === sweep.metric);
    metrics.lastChild.value = sweep.metric;
    show(head, JSON.stringify([sweep.name, sweep.status, sweep.runs, sweep.archived_at, sweep.max_parallel]), () => header(sweep));
    refill(bars, progress(sweep));
    refill(facts, figures(sweep, info));
    const now = JSON.stringify([sweep.metric, sweep.items.map((run) => [run.run_id, run.overrides])]);
    if (now !== drawn) {
      drawn = now;
      parts = runsTable(sweep, info, (run) => parts.picture?.mark(run));
      fill(table, parts.node);
    }
    const best = JSON.stringify([sweep.metric, sweep.items.map((run) => run.best)]);
    show(lines, best, () => {
      const fields = parts.fields;
      parts.picture = parallel({ runs: sweep.items, fields, label: info?.short || sweep.metric, lower: sweep.better === "lower" }, parts.mark, chosen);
      const none = sweep.kind === "ablate" || !fields.length;
      if (none) chosen.offer([]);
      return none ? null : parts.picture.node;
    });
    showRuns();
    await curves.show(sweep);
  }

  function showRuns() {
    parts.show(sweep, sweep.items.filter(chosen.passes));
    chosen.tell(sweep.items);
  }

  function header(sweep) {
    return [
      h("h1", { class: "break" }, sweep.name), status(sweep), h("code", { class: "dim" }, sweep.id), sweep.archived_at && h("span", { class: "tag" }, "archived"),
      mayOperate() && h("div", { class: "row push" }, deeds(sweep).map(([label, look, work]) => act(label, async () => { await work(); await refresh(); }, { place: said, class: look || null })))];
  }

  function missing() {
    stop();
    document.title = "No such sweep · nanochat";
    const text = sweep ? `“${sweep.name}” (${sweep.id}) was deleted while this page was open.` : `There is no sweep “${id.slice(0, 100)}” in this project. It may have been deleted, or belong to another project.`;
    fill(main, absent(sweep ? "This sweep has been deleted" : "No such sweep", text, ["/sweeps", "All sweeps"]));
    sweep = null;
  }
  stop = await every(POLL_MS, refresh);
  if (!sweep) stop();
}

/** Make the children of `node` anew when what they show has changed. */
function show(node, now, make) {
  if (node.shows === now) return;
  node.shows = now;
  fill(node, make());
}

function figures(sweep, info) {
  const lower = sweep.better === "lower";
  const measured = sweep.items.filter((run) => run.best !== null);
  const best = measured.sort((a, b) => (lower ? a.best - b.best : b.best - a.best))[0];
  const sum = (name) => sweep.items.reduce((whole, run) => whole + (run[name] ?? NaN), 0);
  return [
    fact("runs", h("span", { title: counts(sweep) }, number(sweep.items.length))),
    fact(`best ${info?.label ?? sweep.metric}`, best ? [number(best.best), " ", h("a", { href: `/runs/${best.run_id}`, class: "small" }, `run ${best.no}`)] : DASH),
    fact("GPU time", `${number(sum("gpu_hours"), 3)} h`),
    fact("cost so far", dollars(sum("usd"))),
    fact("runs at once", sweep.max_parallel ?? "all"),
    fact("kind", kind(sweep)),
    fact("recipe", sweep.recipe),
    fact("submitted", time(sweep.created_at)),
    sweep.finished_at && fact("finished", time(sweep.finished_at)),
  ];
}

function picker(catalog, changed) {
  const select = h("select", { id: "metric", onchange: () => { setParam("metric", select.value); changed(); } },
    catalog.metrics.filter((metric) => metric.better).map((metric) => h("option", { value: metric.key }, metric.label)));
  return h("div", { class: "choice" }, h("label", { for: "metric" }, "Metric"), select);
}

async function saveCsv(address, params, name) {
  const answer = await get(address, params, { headers: { Accept: "text/csv" }, raw: true });
  download(name, await answer.blob(), "text/csv");
}
