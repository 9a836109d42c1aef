// The large curve of a run's page, with its figures beside it.
import { Problem, get, path } from "../api.js";
import { Chart } from "../chart/chart.js";
import { Range } from "../chart/range.js";
import { fill, h } from "../dom.js";
import { FINISHED } from "../format.js";
import { every } from "../repeat.js";
import { param, params, setParam } from "../address.js";
import { AXES } from "./axes.js";
import { saveCsv, savePng, table } from "./export.js";
import { Finer } from "./finer.js";
import { eventMarks, linesOf, nothing } from "./lines.js";
import { Points } from "./points.js";
import { picker } from "./others.js";
import { figures } from "./side.js";
import { tools } from "./tools.js";

const BUCKETS = 1500;
const DRAW_MS = 400; // between two drawings of new points
const OTHERS_MS = 15_000;
const BOTH = "loss";

/** The x axis that the large curve and the small ones share. */
export const shared = { range: new Range(), mode: "step", stage: "", logX: false, listeners: new Set() };

export function curves(live) {
  const training = live.catalog.stages.filter((s) => s.trains && live.run.stages.some((r) => r.name === s.name));
  const metrics = live.catalog.metrics;
  const keys = metrics.filter((m) => m.plot || m.column || m.better).map((m) => m.key).filter((k) => !["usd", "mem_gib", "dt_ms"].includes(k));
  const chosen = {
    curve: param("curve") ?? BOTH, stage: param("of") ?? "", x: AXES[param("x")] ? param("x") : "step",
    logX: param("logx") === "1", logY: param("logy") === "1", smooth: Number(param("smooth") ?? 0.6), others: params("with").slice(0, 9),
  };
  const own = { run: live.run, points: new Points(live.id, keys, BUCKETS) };
  const others = new Map(); // id → the same of other runs
  let events = [];
  let drawn = []; // what of which run: {points, place, pick}

  const chart = new Chart({ range: shared.range, label: "Learning curves of this run", height: innerWidth < 640 ? 250 : 330 });
  const said = h("p", { class: "wrong", role: "alert", hidden: true });
  const values = h("details", { class: "curve-values" }, h("summary", null, "Values as a table"));
  values.addEventListener("toggle", () => draw());
  const bar = tools({ chosen, range: shared.range, training, metrics, keys, change, pick: () => picker(live, chosen, change), csv: () => saveCsv(all(), live.run), png: async () => savePng(await chart.png(live.run.name), live.run) });
  const node = h("section", { class: "aside curves", "aria-label": "Curves" },
    h("div", { class: "panel curve" }, bar.node, said, chart.node, values), figures(live));

  const all = () => [own, ...others.values()];
  const stages = () => (chosen.stage ? [chosen.stage] : training.map((s) => s.name));

  /** The metrics of the chosen curve that a stage has. Of several for one plot, the first that it reports. */
  function pick(points) {
    return (stage) => {
      const has = (metric) => points.of(stage, metric.key)?.points.length;
      if (chosen.curve !== BOTH) return metrics.filter((m) => m.key === chosen.curve && has(m));
      return ["training", "validation"].map((plot) => metrics.find((m) => m.plot === plot && has(m))).filter(Boolean);
    };
  }

  function draw() {
    const hues = ["c1", "c2", "c3", "c4"];
    const alone = others.size === 0;
    const kinds = [];
    drawn = [];
    let marks = [];
    let place = null;
    const lines = all().flatMap(({ run, points }, i) => {
      const made = linesOf({
        run, points, stages: stages(), mode: chosen.x, logX: chosen.logX, logY: chosen.logY, smooth: chosen.smooth, pick: pick(points), short: live.short,
        name: alone ? undefined : run.name,
        color: (metric) => {
          if (!alone) return `c${i + 1}`;
          if (!kinds.includes(metric.key)) kinds.push(metric.key);
          return hues[kinds.indexOf(metric.key) % hues.length];
        },
      });
      drawn.push({ points, place: made.place, pick: pick(points) });
      if (i === 0) {
        marks = [...made.marks, ...eventMarks(events, made.place, stages(), chosen.logX)];
        place = made.place;
      }
      return made.lines;
    });
    const axes = [...new Map(lines.map((line) => [line.axis, { key: line.axis, label: axisTitle(line.metric), log: chosen.logY }])).values()];
    chart.draw({ x: { ...AXES[chosen.x], log: chosen.logX }, axes, lines, marks, empty: nothing(own.points, lines, place, "this curve", live.short) });
    bar.show(own.points);
    if (values.open) fill(values, values.firstElementChild, table(all(), pick, live.short));
  }

  let due = 0;
  const soon = () => (due ||= setTimeout(() => ((due = 0), draw()), DRAW_MS));
  const finer = new Finer(shared.range, () => drawn, draw);

  async function change(changes) {
    Object.assign(chosen, changes);
    setParam("curve", chosen.curve === BOTH ? null : chosen.curve);
    setParam("of", chosen.stage || null);
    setParam("x", chosen.x === "step" ? null : chosen.x);
    setParam("logx", chosen.logX ? "1" : null);
    setParam("logy", chosen.logY ? "1" : null);
    setParam("smooth", chosen.smooth === 0.6 ? null : String(chosen.smooth));
    setParam("with", chosen.others);
    const moved = ["x", "stage", "logX"].some((name) => name in changes);
    if (moved) shared.range.reset();
    tell();
    await compare();
    draw();
    shared.range.settle();
  }

  /** Tell the small charts what the x axis is. */
  function tell() {
    Object.assign(shared, { mode: chosen.x, stage: chosen.stage, logX: chosen.logX });
    shared.range.log = chosen.logX;
    for (const fn of shared.listeners) fn();
  }

  async function compare() {
    for (const id of [...others.keys()]) if (!chosen.others.includes(id)) others.delete(id);
    for (const id of chosen.others) {
      if (others.has(id) || id === live.id) continue;
      try {
        const run = await get(path`/runs/${id}`);
        const points = new Points(run.id, keys, BUCKETS);
        await points.load();
        others.set(id, { run, points });
        wrong("");
      } catch (err) {
        if (!(err instanceof Problem)) throw err;
        wrong(`Run ${id} cannot be shown beside this one: ${err.message}`);
      }
    }
  }

  function wrong(text) {
    said.textContent = text;
    said.hidden = !text;
  }

  async function marked() {
    events = await live.past();
    soon();
  }

  function refreshOthers() {
    return Promise.all([...others.values()].filter((one) => !FINISHED.has(one.run.status)).map(async (one) => {
      one.run = await get(path`/runs/${one.run.id}`);
      await one.points.load();
      soon();
      shared.range.settle();
    }));
  }

  tell();
  marked();
  live.onRun((run) => (own.run = run));
  live.onEvent((event) => (event.kind === "checkpoint" || event.kind === "eval") && marked());
  own.points.follow(live, draw, soon, () => shared.range.settle());
  compare().then(draw);
  every(OTHERS_MS, refreshOthers).then((stop) => live.onGone(stop));
  live.onGone(() => finer.stop());
  return node;
}

const axisTitle = (metric) => metric.unit || metric.title;
