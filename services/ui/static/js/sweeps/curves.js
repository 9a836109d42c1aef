// Time to quality: the sweep's metric of all its runs against steps, tokens or GPU hours.
import { get, path } from "../api.js";
import { Chart } from "../chart/chart.js";
import { Range } from "../chart/range.js";
import { h } from "../dom.js";
import { choice } from "../choice.js";
import { shown } from "./values.js";

const XS = [["gpu_hours", "GPU hours"], ["tokens", "tokens"], ["step", "steps"]];
const MOST = 10; // lines that can be told apart
const SKIP = 0.04; // of the steps: with the first steep fall in view the rest would be a flat line

export function sweepCurves(id) {
  const range = new Range();
  const chart = new Chart({ range, label: "Metric of the runs", height: 320 });
  const x = choice("Against", "x", XS, () => { range.reset(); draw(); });
  const told = h("p", { class: "dim small" });
  let curves = null;
  let seen = ""; // what the curves were asked for

  function draw() {
    if (!curves) return;
    const lower = curves.better === "lower";
    const ranked = curves.series.map((run) => ({ ...run, best: best(run.points, lower) })).sort((a, b) => (lower ? a.best - b.best : b.best - a.best));
    const lines = ranked.slice(0, MOST).map((run, i) => line(run, i, x.value)).sort((a, b) => a.no - b.no);
    told.textContent = curves.series.length > MOST ? `The best ${MOST} of ${curves.series.length} runs are drawn.` : "";
    chart.draw({
      x: { kind: x.value === "step" ? "step" : "number", label: XS.find(([value]) => value === x.value)[1], log: false },
      axes: [{ key: "y", label: curves.label }],
      lines,
      empty: `No run has reported ${curves.label} yet.`,
    });
  }

  return {
    node: h("div", { class: "panel stack" }, h("div", { class: "row" }, x.node), chart.node, told),
    /** Ask for the curves if the runs have gone on since. */
    async show(sweep) {
      const now = JSON.stringify([sweep.metric, sweep.items.map((run) => [run.step, run.last])]);
      if (now === seen) return;
      curves = await get(path`/sweeps/${id}/curves`, { metric: sweep.metric });
      seen = now;
      draw();
    },
  };
}

function best(points, lower) {
  const values = points.map((point) => (lower ? point.min : point.max)).filter((value) => value !== null);
  return lower ? Math.min(...values) : Math.max(...values);
}

function line(run, rank, kind) {
  const first = (run.points.at(-1)?.step ?? 0) * SKIP;
  const from = Math.max(0, Math.min(run.points.findIndex((point) => point.step >= first), run.points.length - 2));
  const points = rising(run.points.slice(from), kind);
  const changes = Object.entries(run.overrides).map(([name, value]) => `${name.split(".").at(-1)} ${shown(value)}`).join(", ");
  return { id: run.run_id, no: run.no, label: `${run.no}: ${changes || "base"}`, color: `c${rank + 1}`, axis: "y", x: points.map((p) => p[kind]), y: points.map((p) => p.last), points: points.length < 3 };
}

/** Only points beyond the one before: an x axis grows. */
function rising(points, kind) {
  let last = -Infinity;
  return points.filter((point) => point[kind] !== null && point[kind] > last && ((last = point[kind]), true));
}
