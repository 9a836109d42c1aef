// Line charts over one x axis that zoom and pan together. uPlot draws them; a change of data never replaces a node.
import uPlot from "../../vendor/uplot.js";
import { fill, h, keyed, say } from "../dom.js";
import { number } from "../format.js";
import { color, labels, paintMarks, xAxis } from "./paint.js";
import { steer } from "./steer.js";

export class Chart {
  #plot = null; // uPlot, once there is something to draw
  #shape = ""; // what it was made for; anything else needs a new one
  #drawn = null; // what `draw` was last given
  #line = []; // line of each series of uPlot
  #hidden = new Set(); // ids of lines
  #seen = true;
  #late = false; // it was not seen when its range changed

  /**
   * @param {{range: Range, label: string, height?: number, legend?: boolean, guest?: boolean}} options `label` says to a screen reader
   *   what is drawn; a guest shows the range of the other charts and does not widen it
   */
  constructor({ range, label, height = 150, legend = true, guest = false }) {
    this.range = range;
    this.guest = guest;
    this.height = height;
    this.canvas = h("div", { class: "plot-canvas", tabindex: "0", role: "group", "aria-roledescription": "chart", "aria-label": `${label}. Plus and minus zoom, arrows move, 0 shows all.` });
    this.empty = h("p", { class: "plot-empty dim" });
    this.titles = h("div", { class: "plot-titles" });
    this.legend = h("ul", { class: "legend" });
    this.hint = h("p", { class: "plot-hint dim" });
    this.node = h("figure", { class: "plot", "aria-label": label }, this.titles, this.canvas, this.empty, this.legend, this.hint);
    this.canvas.style.height = `${height}px`;
    if (!legend) this.node.classList.add("bare");
    this.#sized = new ResizeObserver(() => this.#plot?.setSize(this.#size()));
    this.#sized.observe(this.canvas);
    this.#watched = new IntersectionObserver(([entry]) => {
      this.#seen = entry.isIntersecting;
      if (this.#seen && this.#late) this.show();
    }, { rootMargin: "200px" });
    this.#watched.observe(this.canvas);
    this.#repaint = () => this.#drawn && this.draw(this.#drawn);
    window.addEventListener("themechange", this.#repaint);
    range.charts.add(this);
    this.#unsteer = steer(this.canvas, () => this.#plot, range);
  }

  #sized;
  #watched;
  #repaint;
  #unsteer;

  /** First and last x of all lines, or null. */
  get extent() {
    if (this.guest) return null;
    let [first, last] = [Infinity, -Infinity];
    for (const line of this.#drawn?.lines ?? []) {
      if (!line.x.length) continue;
      first = Math.min(first, line.x[0]);
      last = Math.max(last, line.x[line.x.length - 1]);
    }
    return first <= last ? [first, last] : null;
  }

  /**
   * @param {{x: {kind: string, label: string, log: boolean}, axes: {key: string, label: string, log?: boolean}[], lines: Line[],
   *   marks?: {x: number, kind: string, text: string}[], empty?: string}} what
   *   A line: `{id, label, color, axis, x, y, raw?, min?, max?, breaks?, points?, dash?}`; x grows strictly, null is a gap, `breaks` are
   *   stretches [from, to] of x over which it is not drawn.
   */
  draw(what) {
    this.#drawn = what;
    const lines = what.lines.filter((line) => line.x.length && line.y.some((y) => y !== null));
    this.empty.hidden = lines.length > 0;
    this.canvas.hidden = this.legend.hidden = this.titles.hidden = this.hint.hidden = !lines.length;
    if (!lines.length) say(this.empty, what.empty ?? "No points yet.");
    if (lines.length) this.#show(what, lines);
    this.range.grown();
  }

  #show(what, lines) {
    const visible = lines.filter((line) => !this.#hidden.has(line.id));
    const used = what.axes.filter((axis) => lines.some((line) => line.axis === axis.key));
    const shape = JSON.stringify([
      document.documentElement.dataset.theme, what.x, used,
      visible.map((l) => [l.id, l.label, l.color, l.axis, Boolean(l.raw), Boolean(l.min), Boolean(l.points), Boolean(l.dash)]),
    ]);
    const { series, bands, tables, owners } = columns(visible);
    this.#line = owners;
    const data = tables.length ? uPlot.join(tables) : [[]];
    if (shape === this.#shape && this.#plot) {
      this.#plot.setData(data, false);
    } else {
      this.#plot?.destroy();
      this.#plot = new uPlot(this.#options(what, used, series, bands), data, this.canvas);
      this.#shape = shape;
      fill(this.titles, used.map((axis) => h("span", null, axis.label)));
    }
    keyed(this.legend, lines, (line) => line.id, (line) => this.#entry(line), (node, line) => this.#update(node, line));
    this.show();
  }

  /** Draw the range that the page shows. */
  show() {
    if (!this.#plot) return;
    this.#late = !this.#seen;
    const now = this.range.now;
    if (!this.#seen || !now) return;
    this.#plot.setScale("x", { min: now[0], max: now[1] });
    Object.assign(this.node.dataset, { from: now[0], to: now[1] });
    if (!(this.#plot.cursor.left >= 0)) this.#point(this.#plot);
  }

  #size() {
    return { width: Math.max(120, this.canvas.clientWidth), height: this.height };
  }

  #options(what, used, series, bands) {
    const grid = { stroke: color("grid"), width: 1 };
    const font = `12px ${color("sans")}`;
    const axis = { stroke: color("ink-2"), grid, ticks: { ...grid, size: 4 }, font };
    const scales = { x: { time: what.x.kind === "time", distr: what.x.log ? 3 : 1, range: (_, min, max) => [min, max] } };
    for (const one of used) scales[one.key] = one.log ? { distr: 3 } : {};
    return {
      ...this.#size(),
      padding: [8, used.length > 1 ? 0 : 12, 0, 0],
      legend: { show: false },
      scales,
      series: [{}, ...series],
      bands,
      axes: [
        { ...axis, ...xAxis(what.x), size: 28, space: 64 },
        ...used.map((one, i) => ({
          ...axis, scale: one.key, side: i ? 1 : 3, size: 54, space: one.log ? 20 : 32, grid: i ? { show: false } : grid,
          values: (_, splits) => labels(splits),
        })),
      ],
      cursor: {
        sync: { key: this.range.key, scales: ["x", null], filters: { pub: (type) => type === "mousemove", sub: () => true } },
        drag: { x: true, y: false, setScale: false },
        bind: { dblclick: () => () => this.range.reset() },
        points: { size: 7 },
        dataIdx: (u, at, near) => nearest(u, at, near),
        y: false,
      },
      hooks: {
        setSelect: [(u) => this.#zoomed(u)],
        setCursor: [(u) => this.#point(u)],
        draw: [(u) => paintMarks(u, this.#drawn.marks ?? [])],
      },
    };
  }

  #zoomed(u) {
    const { left, width } = u.select;
    if (width > 3) this.range.set(u.posToVal(left, "x"), u.posToVal(left + width, "x"));
    u.setSelect({ width: 0, height: 0, left: 0, top: 0 }, false);
  }

  /** The values under the cursor, or the newest ones. */
  #point(u) {
    const { left, idxs } = u.cursor;
    const on = left >= 0;
    for (const node of this.legend.children) {
      const at = this.#line.findIndex((line) => line?.id === node.dataset.key);
      const line = this.#line[at];
      if (!line) continue;
      const value = on ? u.data[at][idxs[at]] : line.y.findLast((y) => y !== null);
      say(node.querySelector("b"), number(value));
    }
    const { x, marks = [] } = this.#drawn;
    if (!on) return say(this.hint, [this.range.isZoomed && this.#rangeInWords(x), this.#marksInWords()].filter(Boolean).join(" · "));
    const here = marks.filter((mark) => Math.abs(u.valToPos(mark.x, "x") - left) < 6).map((mark) => mark.text);
    say(this.hint, [`${x.label} ${xAxis(x).text(u.posToVal(left, "x"))}`, ...new Set(here)].join(" · "));
  }

  #rangeInWords(x) {
    const { text } = xAxis(x);
    return `${x.label} ${this.range.now.map(text).join(" to ")}`;
  }

  #marksInWords() {
    const kinds = new Set((this.#drawn.marks ?? []).map((mark) => mark.kind));
    const words = { checkpoint: "◆ checkpoint", eval: "○ evaluation", resume: "┆ resumed", nonfinite: "✕ not finite" };
    return Object.entries(words).filter(([kind]) => kinds.has(kind)).map(([, word]) => word).join(" · ");
  }

  #entry(line) {
    return h("li", null, h("button", { type: "button", class: "plain", title: "Show or hide this line", onclick: () => this.#toggle(line.id) }, h("i"), h("span"), h("b")));
  }

  #update(node, line) {
    const [button] = node.children;
    const shown = !this.#hidden.has(line.id);
    button.setAttribute("aria-pressed", String(shown));
    button.children[0].style.background = shown ? color(line.color) : "transparent";
    button.children[0].style.borderColor = color(line.color);
    say(button.children[1], line.label);
    if (!(this.#plot?.cursor.left >= 0)) say(button.children[2], number(line.y.findLast((y) => y !== null)));
  }

  #toggle(id) {
    if (!this.#hidden.delete(id)) this.#hidden.add(id);
    this.draw(this.#drawn);
  }

  /** What is drawn as an image, with its axis titles, on the colour of the page. */
  async png(title) {
    const from = this.#plot.ctx.canvas;
    const ratio = devicePixelRatio;
    const canvas = h("canvas");
    [canvas.width, canvas.height] = [from.width, from.height + 40 * ratio];
    const ctx = canvas.getContext("2d");
    ctx.fillStyle = color("surface");
    ctx.fillRect(0, 0, canvas.width, canvas.height);
    ctx.fillStyle = color("ink");
    ctx.font = `${13 * ratio}px ${color("sans")}`;
    ctx.fillText(`${title} · ${[...this.titles.children].map((t) => t.textContent).join(" · ")} · x: ${this.#drawn.x.label}`, 12 * ratio, 22 * ratio, canvas.width - 24 * ratio);
    ctx.drawImage(from, 0, 32 * ratio);
    return new Promise((done) => canvas.toBlob(done, "image/png"));
  }

  destroy() {
    this.#sized.disconnect();
    this.#watched.disconnect();
    window.removeEventListener("themechange", this.#repaint);
    this.#unsteer();
    this.#plot?.destroy();
    this.range.charts.delete(this);
    this.node.remove();
  }
}

/** The series of uPlot that the lines need: a band from min to max, the faint raw values, the line itself. */
function columns(lines) {
  const [series, bands, tables, owners] = [[], [], [], [null]];
  const add = (options, owner) => {
    series.push({ points: { show: false }, ...options });
    owners.push(owner);
    return series.length; // its index in uPlot, where x is 0
  };
  for (const line of lines) {
    const stroke = color(line.color);
    const table = [line.x];
    const gaps = (u, at, first, last, nulls) => withBreaks(u, line.breaks ?? [], nulls);
    const hidden = { scale: line.axis, stroke: null, width: 0, label: "", gaps };
    if (line.min) {
      const low = add(hidden, null);
      const high = add(hidden, null);
      bands.push({ series: [high, low], fill: faded(stroke, 0.16) });
      table.push(line.min, line.max);
    }
    if (line.raw) {
      add({ scale: line.axis, stroke: faded(stroke, 0.32), width: 1, label: "", gaps }, null);
      table.push(line.raw);
    }
    add({ scale: line.axis, stroke, width: line.raw || line.points ? 2 : 1.5, dash: line.dash ? [6, 4] : undefined, label: line.label, gaps, points: { show: Boolean(line.points), size: 6, fill: stroke } }, line);
    table.push(line.y);
    tables.push(table);
  }
  return { series, bands, tables, owners };
}

/** The stretches in pixels where nothing is drawn: those without values, and the breaks of the line, two pixels at least. */
function withBreaks(u, breaks, nulls) {
  if (!breaks.length) return nulls;
  const mine = breaks.map(([from, to]) => [u.valToPos(from, "x", true), u.valToPos(to, "x", true)]).map(([from, to]) => [Math.min(from, to - 2), to - 0.5]);
  const all = [...nulls, ...mine].filter(([from, to]) => to > u.bbox.left && from < u.bbox.left + u.bbox.width).sort((a, b) => a[0] - b[0]);
  const merged = [];
  for (const [from, to] of all) {
    const last = merged.at(-1);
    if (last && from <= last[1]) last[1] = Math.max(last[1], to);
    else merged.push([from, to]);
  }
  return merged;
}

/** The index of the value of the series nearest to `near`: lines with points of their own share one x axis. */
function nearest(u, at, near) {
  const ys = u.data[at];
  if (!at || typeof ys[near] === "number") return near;
  const [first, last] = u.series[0].idxs;
  for (let d = 1; near - d >= first || near + d <= last; d++) {
    if (near - d >= first && typeof ys[near - d] === "number") return near - d;
    if (near + d <= last && typeof ys[near + d] === "number") return near + d;
  }
  return near;
}

function faded(stroke, alpha) {
  const hex = stroke.replace("#", "");
  const [r, g, b] = [0, 2, 4].map((i) => parseInt(hex.slice(i, i + 2), 16));
  return `rgba(${r},${g},${b},${alpha})`;
}
