// The table of what runs reached and what they cost.
import { h } from "../dom.js";
import { DASH, FINISHED, between, chip, dollars, number, seconds } from "../format.js";
import { badge, cut } from "./badge.js";

const MODELS = ["BASE", "MID", "SFT", "RL"];
const LOWER = /bits per byte|loss/i;

/** @param {{run: any, report: any, no: number}[]} found */
export function scores(found) {
  const ended = found.every(({ run }) => FINISHED.has(run.status)) ? "lower" : null; // what goes on will take more
  const rows = [
    { name: "Status", values: found.map(({ run }) => chip(run.status)) },
    { name: "Recipe", values: found.map(({ run }) => h("span", { class: "break" }, run.recipe)) },
    ...measured(found),
    figure("Time", found.map(({ run }) => between(run.started_at, run.finished_at)), seconds, ended),
    figure("GPU hours", found.map(({ run }) => run.budget.used_gpu_hours), (x) => `${number(x, 3)} h`, ended),
    figure("Cost", found.map(({ run }) => run.budget.used_usd), dollars, ended),
  ];
  return h("div", { class: "scroll fixed", tabindex: "0", role: "region", "aria-label": "Table of scores" }, h("table", null,
    h("thead", null, h("tr", null, h("th", { scope: "col" }, "Figure"), found.map((one) => h("th", { scope: "col", class: "num" }, badge(one.no), " ", h("a", { href: `/runs/${one.run.id}`, title: one.run.name }, cut(one.run.name)))))),
    h("tbody", null, rows.map((row) => h("tr", null, h("th", { scope: "row" }, row.name), row.values.map((value) => h("td", { class: "num" }, value)))))));
}

/** A row for each score of each model that some run has, in the order of the report card. */
function measured(found) {
  const rows = new Map();
  for (const { report } of found) for (const row of report?.summary ?? []) for (const model of MODELS) if (row.values[model] !== undefined) rows.set(`${row.name}\0${model}`, [row.name, model]);
  const order = [...new Set([...rows.values()].map(([name]) => name))];
  const sorted = [...rows.values()].sort((a, b) => order.indexOf(a[0]) - order.indexOf(b[0]) || MODELS.indexOf(a[1]) - MODELS.indexOf(b[1]));
  return sorted.map(([name, model]) => {
    const cells = found.map(({ report }) => report?.summary.find((row) => row.name === name));
    const texts = (i) => [number(cells[i].values[model]), cells[i].errors[model] !== undefined && h("span", { class: "dim" }, ` ± ${number(cells[i].errors[model], 2)}`)];
    return figure([name, " ", h("span", { class: "tag" }, model.toLowerCase())], cells.map((row) => row?.values[model]), (_, i) => texts(i), LOWER.test(name) ? "lower" : "higher");
  });
}

/** A row whose best value is marked, if there are two to choose from. */
function figure(name, values, text, better) {
  const real = values.filter((x) => typeof x === "number" && Number.isFinite(x));
  const best = better === "lower" ? Math.min(...real) : Math.max(...real);
  const tells = better && real.length > 1 && real.some((x) => x !== best);
  return { name, values: values.map((x, i) => (Number.isFinite(x) ? (tells && x === best ? h("strong", { title: "the best" }, "★ ", text(x, i)) : text(x, i)) : DASH)) };
}
