// Parallel coordinates: one axis for each field that a sweep changes and one for its metric, one line for each run.
import { fill, h, svg } from "../dom.js";
import { DASH, number } from "../format.js";
import { same } from "../recipe.js";
import { shown } from "./values.js";

const [HEIGHT, TOP, BOTTOM, SIDE] = [260, 44, 16, 90];
const [LEAST, WIDEST, GOOD] = [150, 320, 900]; // distance of two axes; the width to fill
const MANY = 12; // axes beyond which nobody can follow a line
const LOG = 20; // ratio of the greatest to the smallest value from which on an axis is logarithmic
const TICKS = 8;
const GRIP = 14; // pixels beside an axis where a drag chooses a range of it
const STILL = 3; // pixels; what moves less is a click, which takes the range back

/**
 * @param {{runs: {no: number, run_id: string, name: string, overrides: object, best: number | null}[], fields: string[], label: string, lower: boolean}} sweep
 * @param {ReturnType<import("./chosen.js").chosenRuns>} chosen which runs are shown
 * @returns {{node: HTMLElement, mark: (runId: string | null) => void, update: () => void}} `mark` emphasises a run's line, `update` shows what is chosen
 */
export function parallel(sweep, onMark, chosen) {
  const measured = sweep.runs.filter((run) => run.best !== null);
  if (sweep.fields.length > MANY || measured.length < 2) {
    chosen.offer([]);
    return { node: h("div", { hidden: true }), mark: () => {}, update: () => {} };
  }
  const axes = [...sweep.fields.map((field) => axis(field, measured.map((run) => run.overrides[field]))), axis(sweep.label, measured.map((run) => run.best), sweep.lower)];
  const gap = Math.min(WIDEST, Math.max(LEAST, GOOD / (axes.length - 1)));
  const width = 2 * SIDE + gap * (axes.length - 1);
  const x = (i) => SIDE + i * gap;
  const ranks = [...measured].sort((a, b) => (sweep.lower ? a.best - b.best : b.best - a.best));
  const lines = measured.map((run) => {
    const worse = ranks.indexOf(run) / (ranks.length - 1);
    const values = [...sweep.fields.map((field) => run.overrides[field]), run.best];
    const path = values.map((value, i) => `${i ? "L" : "M"}${x(i)},${axes[i].place(value).toFixed(1)}`).join("");
    const told = `Run ${run.no}, ${run.name}: ${sweep.fields.map((field) => `${field} ${shown(run.overrides[field])}`).join(", ")}, ${sweep.label} ${number(run.best)}`;
    const line = svg("a", { href: `/runs/${run.run_id}`, "aria-label": told, class: "line", "data-run": run.run_id },
      svg("title", null, told), svg("path", { d: path, class: "hit" }), svg("path", { d: path, class: "seen" }));
    line.lastChild.style.stroke = `color-mix(in oklab, var(--c2) ${Math.round(100 * worse)}%, var(--c1))`;
    for (const [event, id] of [["pointerenter", run.run_id], ["pointerleave", null], ["focus", run.run_id], ["blur", null]]) line.addEventListener(event, () => { mark(id); onMark(id); });
    return line;
  });
  const scales = axes.map((one, i) => svg("g", { class: "axis", "aria-hidden": "true" },
    svg("line", { x1: x(i), x2: x(i), y1: TOP, y2: HEIGHT - BOTTOM }),
    svg("text", { x: x(i), y: TOP - 22, class: "name" }, short(one.name), svg("title", null, one.name)),
    one.ticks.map(([value, text]) => [
      svg("line", { x1: x(i) - 4, x2: x(i), y1: one.place(value), y2: one.place(value) }),
      svg("text", { x: x(i) - 8, y: one.place(value) + 4, class: "tick" }, text)])));
  chosen.offer(axes.filter((one) => one.back).map(({ name }) => ({ name, of: name === sweep.label ? (run) => run.best : (run) => run.overrides[name] })));
  const brushes = axes.flatMap((one, i) => (one.back ? [brush(one, x(i), chosen)] : []));
  const picture = svg("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, width, height: HEIGHT, role: "group", "aria-label": `Each run as a line from the fields that it changes to its best ${sweep.label}` });
  fill(picture, scales, lines, brushes.map((one) => [one.range, one.grip]));

  function mark(id) {
    picture.classList.toggle("marking", id !== null);
    for (const line of lines) line.classList.toggle("marked", line.dataset.run === id);
  }
  function update() {
    lines.forEach((line, i) => line.classList.toggle("left-out", !chosen.passes(measured[i])));
    for (const one of brushes) one.update();
  }
  update();
  const node = h("figure", { class: "parallel" }, h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Parallel coordinates" }, picture),
    h("figcaption", { class: "dim small" }, "Each line is a run and leads to it. Blue lines are the best, orange ones the worst."));
  return { node, mark, update };
}

/** What chooses a range of an axis: a strip beside it, where one drags, and the range that is chosen. */
function brush(axis, x, chosen) {
  const [top, bottom] = [TOP, HEIGHT - BOTTOM];
  const box = { x: x - GRIP, width: 2 * GRIP, "aria-hidden": "true" };
  const grip = svg("rect", { ...box, y: top, height: bottom - top, class: "grip", "data-axis": axis.name });
  const range = svg("rect", { ...box, class: "range" });
  let from = null; // y where the drag began

  const y = (event) => Math.min(bottom, Math.max(top, event.clientY - grip.ownerSVGElement.getBoundingClientRect().top));
  const draw = (a, b) => {
    range.setAttribute("y", Math.min(a, b));
    range.setAttribute("height", Math.abs(a - b));
  };
  /** The value at a place; an end of the axis is no bound. */
  const bound = (at) => (at > top && at < bottom ? axis.back(at) : NaN);

  grip.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    event.preventDefault();
    grip.setPointerCapture(event.pointerId);
    draw((from = y(event)), from);
  });
  grip.addEventListener("pointermove", (event) => from !== null && draw(from, y(event)));
  grip.addEventListener("pointerup", (event) => {
    if (from === null) return;
    const ends = [from, y(event)].sort((a, b) => (axis.up ? a - b : b - a)).map(bound); // that of the smaller value first
    const still = Math.abs(from - y(event)) < STILL;
    from = null;
    chosen.set(axis.name, still ? null : { low: Number.isNaN(ends[0]) ? -Infinity : ends[0], high: Number.isNaN(ends[1]) ? Infinity : ends[1] });
  });
  grip.addEventListener("pointercancel", () => {
    from = null;
    update();
  });

  function update() {
    const now = chosen.range(axis.name);
    const at = (value, end) => (Number.isFinite(value) ? Math.min(bottom, Math.max(top, axis.place(value))) : end);
    if (now) draw(at(now.low, axis.up ? top : bottom), at(now.high, axis.up ? bottom : top));
    else draw(top, top);
  }
  return { grip, range, update };
}

/** Numbers by size, anything else in the order in which it comes. `up` puts the smallest number on top. `back` gives the number at a place. */
function axis(name, values, up = false) {
  const [from, to] = [HEIGHT - BOTTOM, TOP];
  const distinct = values.filter((value, i) => values.findIndex((other) => same(other, value)) === i);
  const numeric = distinct.every((value) => typeof value === "number");
  if (!numeric || distinct.length === 1) {
    const place = (value) => {
      const at = distinct.findIndex((other) => same(other, value));
      return distinct.length === 1 ? (from + to) / 2 : from + ((to - from) * at) / (distinct.length - 1);
    };
    return { name, place, ticks: distinct.map((value) => [value, short(shown(value), 11)]) };
  }
  const [low, high] = [Math.min(...distinct), Math.max(...distinct)];
  const scale = low > 0 && high / low >= LOG ? Math.log : (value) => value;
  const part = (value) => (scale(value) - scale(low)) / (scale(high) - scale(low));
  const place = (value) => from + (to - from) * (up ? 1 - part(value) : part(value));
  const back = (y) => {
    const at = (y - from) / (to - from);
    const value = scale(low) + (scale(high) - scale(low)) * (up ? 1 - at : at);
    return scale === Math.log ? Math.exp(value) : value;
  };
  const marked = distinct.length <= TICKS ? distinct : [low, high];
  return { name, place, back, up, ticks: apart(marked, place).map((value) => [value, number(value)]) };
}

/** Those values whose labels do not cover one another. */
function apart(values, place) {
  const kept = [];
  const ends = [Math.min(...values), Math.max(...values)];
  for (const value of new Set([...ends, ...values])) if (kept.every((other) => Math.abs(place(other) - place(value)) >= 14)) kept.push(value);
  return kept;
}

/** The end of a dotted name says most. */
function short(text, most = 22) {
  if (text === undefined || text === null) return DASH;
  return text.length <= most ? text : `…${text.slice(1 - most)}`;
}
