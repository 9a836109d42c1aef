// The table of a sweep's runs, with a column for each field that some run changes.
import { h } from "../dom.js";
import { chip, dollars, number } from "../format.js";
import { table } from "../table.js";
import { shown } from "./values.js";

const MOST_COMPARED = 10;

/** @returns {{node: HTMLElement, fields: string[], show: (sweep: any, runs: any[]) => void, mark: (runId: string | null) => void}} */
export function runsTable(sweep, info, onMark) {
  const fields = [...new Set(sweep.items.flatMap((run) => Object.keys(run.overrides)))];
  let best = null;
  const compare = h("a", { class: "button", hidden: true });
  const ablation = sweep.kind === "ablate";
  const list = table({ label: "Runs of the sweep", key: (run) => run.run_id, columns: columns(fields, ablation, info?.short || sweep.metric, () => best) });
  const rowOf = (target) => target.closest?.("tbody tr")?.dataset.key ?? null;
  list.node.addEventListener("pointerover", (event) => onMark(rowOf(event.target)));
  list.node.addEventListener("pointerleave", () => onMark(null));

  return {
    node: h("div", { class: "stack" }, list.node, h("div", null, compare)),
    fields,
    /** Show these of its runs. */
    show(now, runs) {
      const lower = now.better === "lower";
      const ranked = (of) => of.filter((run) => run.best !== null).sort((a, b) => (lower ? a.best - b.best : b.best - a.best));
      best = ranked(now.items)[0]?.run_id ?? null;
      const chosen = [...ranked(runs), ...runs.filter((run) => run.best === null)].slice(0, MOST_COMPARED);
      compare.hidden = chosen.length < 2;
      compare.textContent = chosen.length < runs.length ? `Compare the best ${chosen.length}` : `Compare all ${chosen.length}`;
      compare.href = `/compare?${new URLSearchParams(chosen.map((run) => ["run", run.run_id]))}`;
      list.show(runs);
    },
    mark(id) {
      for (const row of list.node.querySelectorAll("tbody tr")) row.classList.toggle("marked", row.dataset.key === id);
    },
  };
}

function columns(fields, ablation, metric, best) {
  const changed = ablation
    ? [{ id: "changes", title: "Changes", cell: (run) => h("code", { class: "break" }, Object.entries(run.overrides).map(([name, value]) => `${name} = ${shown(value)}`).join(", ") || "nothing: the base") }]
    : fields.map((field) => ({ id: field, title: short(field, fields), hint: field, num: true, value: (run) => orderly(run.overrides[field]), cell: (run) => shown(run.overrides[field]) }));
  return [
    { id: "no", title: "Run", value: (run) => run.no, cell: (run) => h("a", { href: `/runs/${run.run_id}`, title: run.name, class: "nowrap" }, `${run.no} `, h("span", { class: "unseen" }, run.name)) },
    { id: "status", title: "Status", value: (run) => run.status, cell: (run) => [chip(run.status), why(run) && h("span", { class: "sub break" }, why(run))] },
    ...changed,
    { id: "best", title: `Best ${metric}`, num: true, value: (run) => run.best, cell: (run) => (run.run_id === best() ? h("strong", { title: "the best of the sweep" }, "★ ", number(run.best)) : number(run.best)) },
    { id: "last", title: "Newest", num: true, hint: `Newest ${metric}`, value: (run) => run.last, cell: (run) => [number(run.last), run.step !== null && h("span", { class: "sub" }, `step ${number(run.step)}`)] },
    { id: "tokens", title: "Tokens", num: true, value: (run) => run.tokens, cell: (run) => number(run.tokens) },
    { id: "hours", title: "Work", num: true, hint: "Hours in which one of its stages was at work", value: (run) => run.hours, cell: (run) => `${number(run.hours, 3)} h` },
    { id: "usd", title: "Cost", num: true, hint: "A dash means that the price of the GPU is unknown", value: (run) => run.usd, cell: (run) => dollars(run.usd) },
  ];
}

/** The last word of a field's name where that tells it from the others. */
function short(field, fields) {
  const end = field.split(".").at(-1);
  return fields.filter((other) => other.split(".").at(-1) === end).length === 1 ? end : field;
}

const orderly = (value) => (typeof value === "number" || typeof value === "string" ? value : value === undefined ? null : JSON.stringify(value));

function why(run) {
  if (run.stopped_early) return "stopped early by the sweep's rule";
  if (run.held) return "waits for its turn in the sweep";
  return run.detail;
}
