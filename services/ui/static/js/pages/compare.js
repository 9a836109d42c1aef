// Up to ten runs side by side: what they reach, what they cost, how their recipes differ, and their curves.
import { get, path, Problem } from "../api.js";
import { fill, h } from "../dom.js";
import { FINISHED, chip } from "../format.js";
import { badge } from "../compare/badge.js";
import { finder } from "../compare/finder.js";
import { compareCurves } from "../compare/curves.js";
import { differences } from "../compare/differences.js";
import { scores } from "../compare/scores.js";
import { empty, refill, section } from "../parts.js";
import { every } from "../repeat.js";
import { copyButton } from "../clipboard.js";
import { params, setParam } from "../address.js";

const MOST = 10;
const POLL_MS = 5000;

export async function page(main) {
  const asked = [...new Set(params("run").filter(Boolean))];
  let wanted = asked.slice(0, MOST);
  const tooMany = asked.slice(MOST);
  const known = new Map(); // what was asked for → {run, report}
  const wrong = h("div", { class: "stack" });
  const list = h("ul", { class: "compared", "aria-label": "Runs that are compared" });
  const [table, diff] = [h("div"), h("div", { class: "stack" })];
  const curves = compareCurves();
  const body = h("div", { class: "stack parts", hidden: true },
    section("Scores and cost", { id: "h-scores", hint: "★ marks the best. ± is a standard error." }, table),
    section("Curves", { id: "h-curves" }, curves.node),
    section("Recipes", { id: "h-recipes", hint: "Only what differs." }, diff));
  const first = empty("Choose the runs to compare", h("p", { class: "dim" }, "Search for a run by its name or id above. The address of this page then names them all, so it can be shared."));
  const search = finder({ placeholder: "name or id of a run", choose: add, chosen: () => wanted.map(idOf) });
  main.append(
    h("div", { class: "page-head" }, h("h1", null, "Compare"), h("div", { class: "row push" }, copyButton(() => location.href, "Copy the link"))),
    h("div", { class: "stack" }, search.node, list, wrong), first, body);

  const idOf = (name) => known.get(name)?.run.id ?? name;

  function add(id) {
    if (wanted.map(idOf).includes(id)) return;
    if (wanted.length >= MOST) return search.wrong(`Ten runs are the most that can be compared. Remove one first.`);
    change([...wanted, id]);
  }

  function change(names) {
    wanted = names;
    tooMany.length = 0;
    setParam("run", wanted);
    search.wrong(null);
    refresh();
  }

  async function load(name) {
    const had = known.get(name);
    if (had && FINISHED.has(had.run.status)) return had;
    const run = await get(path`/runs/${name}`);
    const told = await get(path`/runs/${run.id}/report`).catch((err) => {
      if (err instanceof Problem && err.status < 500) return null; // it has not begun, or its files are not here
      throw err;
    });
    const found = { run, report: told?.report ?? null };
    known.set(name, found);
    return found;
  }

  async function refresh() {
    const names = wanted;
    const answers = await Promise.all(names.map((name) => load(name).catch((err) => {
      if (err instanceof Problem && err.status >= 400 && err.status < 500) return { name, err };
      throw err;
    })));
    if (names !== wanted) return; // a newer choice is on its way
    const failed = answers.filter((one) => one.err);
    const found = answers.filter((one) => one.run).map((one, i) => ({ ...one, no: i, name: names[answers.indexOf(one)] }));
    fill(wrong,
      failed.map(({ name }) => h("div", { class: "notice bad row", role: "alert" }, h("span", { class: "break" }, `There is no run “${name}” in this project, or it was deleted.`), remove(name, name))),
      tooMany.length > 0 && h("div", { class: "notice warn", role: "alert" }, `Ten runs are the most that can be compared. Left out: ${tooMany.join(", ")}.`));
    fill(list, found.map((one) => h("li", null, badge(one.no), h("a", { href: `/runs/${one.run.id}`, class: "break" }, one.run.name), chip(one.run.status), remove(one.name, one.run.name))));
    first.hidden = found.length > 0;
    body.hidden = !found.length;
    refill(table, found.length ? scores(found) : null);
    refill(diff, found.length ? differences(found) : null);
    await curves.show(found.map((one) => one.run));
  }

  const remove = (name, told) => h("button", { type: "button", class: "plain", "aria-label": `Remove ${told}`, title: "Remove", onclick: () => change(wanted.filter((one) => one !== name)) }, "✕");
  await every(POLL_MS, refresh);
}
