// Curves of the compared runs over one x axis: loss and bits per byte of a training stage.
import { get, path } from "../api.js";
import { Chart } from "../chart/chart.js";
import { Range } from "../chart/range.js";
import { choice } from "../choice.js";
import { h } from "../dom.js";
import { FINISHED } from "../format.js";
import { AXES, placed } from "../run/axes.js";
import { letter } from "./badge.js";

const STAGES = [["base_train", "pretraining"], ["mid_train", "midtraining"], ["sft", "SFT"], ["rl", "RL"]];
const XS = [["step", "steps"], ["tokens", "tokens"], ["flops", "training FLOPs"], ["relative", "time"]];
const PLOTS = [
  { key: "loss", label: "training loss (nats per token)", keys: ["loss"] },
  { key: "val", label: "validation bits per byte", keys: ["val_bpb"] },
];
const POINTS = 1000;

export function compareCurves() {
  const range = new Range();
  const stage = choice("Stage", "stage", STAGES, () => { range.reset(); load(); });
  const x = choice("Against", "x", XS, () => { range.reset(); load(); });
  const charts = PLOTS.map((plot) => ({ ...plot, chart: new Chart({ range, label: plot.label, height: 280 }) }));
  const kept = new Map(); // run and stage → its series
  let runs = [];

  async function load() {
    const name = stage.value;
    await Promise.all(runs.map(async (run) => {
      const key = `${run.id}/${name}`;
      const its = run.stages.find((one) => one.name === name);
      const done = !its || FINISHED.has(its.status);
      if (kept.get(key)?.done) return;
      const found = its?.started_at ? await get(path`/runs/${run.id}/metrics`, { stage: name, keys: PLOTS.flatMap((plot) => plot.keys), max_points: POINTS }) : { series: [] };
      kept.set(key, { done, series: found.series });
    }));
    draw();
  }

  function draw() {
    const { kind, label: along } = AXES[x.value];
    for (const { chart, keys, label } of charts) {
      chart.draw({
        x: { kind, label: along, log: false },
        axes: [{ key: "y", label }],
        lines: runs.map((run, no) => line(run, no, stage.value, kept.get(`${run.id}/${stage.value}`)?.series ?? [], keys, x.value)).filter(Boolean),
        empty: `No run has reported ${label} in this stage.`,
      });
    }
  }

  return {
    node: h("div", { class: "stack" }, h("div", { class: "row" }, stage.node, x.node), h("div", { class: "columns" }, charts.map(({ chart }) => h("div", { class: "panel" }, chart.node)))),
    async show(now) {
      runs = now;
      await load();
    },
  };
}

function line(run, no, stage, all, keys, mode) {
  const series = all.find((one) => keys.includes(one.key));
  if (!series?.points.length) return null;
  const place = placed({ run, mode, stages: [stage], series: all });
  const [xs, ys] = [[], []];
  for (const point of series.points) {
    const at = place.at(stage, point.step, point.t);
    if (!(at > (xs.at(-1) ?? -Infinity))) continue; // an x axis grows
    xs.push(at);
    ys.push(point.last);
  }
  return { id: run.id, label: `${letter(no)} ${run.name}`, color: `c${no + 1}`, axis: "y", x: xs, y: ys, points: xs.length < 60 };
}
