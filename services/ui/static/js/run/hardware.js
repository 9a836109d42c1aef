// The charts of a run's GPUs and machines. Their x axis is the clock, whatever that of the curves is: also stages without steps use hardware.
import { Problem, get, path } from "../api.js";
import { Chart } from "../chart/chart.js";
import { Range } from "../chart/range.js";
import { fill, h, say } from "../dom.js";
import { FINISHED } from "../format.js";
import { every } from "../repeat.js";
import { AXES } from "./axes.js";
import { shared } from "./curves.js";
import { FEW } from "./lines.js";

const EVERY_MS = 15_000; // samples are ten seconds apart
const BUCKETS = 240;
const HUES = 10; // c1 to c10
const PLOTS = [
  { gpu: true, key: "activity_pct", title: "GPU activity", unit: "%" },
  { gpu: true, key: "memory_gib", title: "GPU memory", unit: "GiB" },
  { gpu: true, key: "power_w", title: "GPU power", unit: "W" },
  { gpu: true, key: "temperature_c", title: "GPU temperature", unit: "°C" },
  { gpu: false, key: "activity_pct", title: "CPU activity", unit: "%" },
  { gpu: false, key: "memory_gib", title: "Host memory", unit: "GiB" },
];

/** Returns the node of the charts, and what stops them. */
export function hardware(live) {
  const own = new Range();
  const said = h("p", { class: "dim small" });
  const grid = h("div", { class: "plots" });
  const node = h("section", { class: "stack", "aria-label": "GPUs and machines" }, h("h2", null, "GPUs and machines"), said, grid);
  let devices = null;
  let wrong = "";
  let read = null; // {stage, ended}: of which stage the devices are, and whether the run had ended
  let linked = null; // whether the charts show the range of the curves
  let charts = [];
  let over = false;

  const follows = () => shared.mode === "time" && !shared.logX && shared.range.whole !== null;

  function build() {
    for (const { chart } of charts) chart.destroy();
    charts = PLOTS.map((plot) => {
      const chart = new Chart({ range: linked ? shared.range : own, guest: linked, label: plot.title });
      return { plot, chart, node: h("section", { class: "panel small-plot" }, h("h3", null, plot.title), chart.node) };
    });
    fill(grid, charts.map((one) => one.node));
  }

  function draw() {
    if (linked !== follows()) {
      linked = follows();
      build();
    }
    for (const { plot, chart, node: place } of charts) {
      const lines = linesOf(devices ?? [], plot);
      place.hidden = !lines.length;
      chart.draw({ x: AXES.time, axes: [{ key: plot.unit, label: plot.unit }], lines });
    }
    say(said, words());
  }

  function words() {
    if (!devices) return wrong ? `The samples could not be read: ${wrong}` : "Reading the samples …";
    const of = shared.stage ? "this stage" : "this run";
    if (!devices.length) return FINISHED.has(live.run.status) ? `No samples were taken of the hardware of ${of}.` : `No samples of the hardware of ${of} yet. One is taken every ten seconds while a stage runs.`;
    const how = linked ? "By the clock, with the zoom of the curves." : "By the clock, whatever the x axis of the curves is. With “x: time” both zoom together.";
    return devices.some((d) => d.gpu !== null) ? how : `${how} No GPU was sampled.`;
  }

  async function load() {
    const [stage, ended] = [shared.stage, FINISHED.has(live.run.status)];
    if (ended && read?.ended && read.stage === stage) return;
    try {
      const answer = await get(path`/runs/${live.id}/hardware`, { stage, max_points: BUCKETS });
      if (stage !== shared.stage) return; // another answer is on its way
      [devices, wrong, read] = [answer.devices, "", { stage, ended }];
    } catch (err) {
      if (!(err instanceof Problem)) throw err;
      wrong = err.lines.join("\n");
    }
    if (!over) draw();
  }

  function changed() {
    if (read && read.stage !== shared.stage) load();
    draw();
  }

  const relink = () => linked !== follows() && draw();
  shared.listeners.add(changed);
  shared.range.addEventListener("change", relink);
  draw();
  const stopped = every(EVERY_MS, load);
  return {
    node,
    stop() {
      over = true;
      stopped.then((stop) => stop());
      shared.listeners.delete(changed);
      shared.range.removeEventListener("change", relink);
      for (const { chart } of charts) chart.destroy();
    },
  };
}

/** One line for each GPU, or for each machine. */
function linesOf(devices, { gpu, key, unit }) {
  const shown = devices.filter((d) => (d.gpu !== null) === gpu && d[key]);
  const workers = [...new Set(devices.map((d) => d.worker))];
  return shown.map((device) => {
    const { mean, min, max } = device[key];
    const spread = min.some((low, i) => low !== max[i]);
    const machine = workers.indexOf(device.worker);
    const name = gpu ? `GPU ${device.gpu}` : device.worker;
    return {
      id: `${device.worker} ${device.gpu}`, label: gpu && workers.length > 1 ? `${device.worker} · ${name}` : name,
      color: `c${1 + ((gpu ? device.gpu : machine) % HUES)}`, dash: gpu && machine % 2 === 1, axis: unit,
      x: device.t, y: mean, min: spread ? min : null, max: spread ? max : null, breaks: pauses(device.t), points: device.t.length <= FEW,
    };
  });
}

/** The stretches in which no stage ran: much longer than what lies between two buckets. */
function pauses(t) {
  const gaps = t.slice(1).map((x, i) => x - t[i]);
  const usual = gaps.toSorted((a, b) => a - b)[Math.floor(gaps.length / 2)];
  return gaps.flatMap((gap, i) => (gap > Math.max(60, 4 * usual) ? [[t[i], t[i + 1]]] : []));
}
