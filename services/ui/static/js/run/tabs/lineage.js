// What every model and score was made from: the stages as a graph, with what each published.
import { get, path } from "../../api.js";
import { fill, h, svg } from "../../dom.js";
import { chip, number } from "../../format.js";
import { copyButton } from "../../clipboard.js";
import { layers } from "./layers.js";
import { kept } from "./panel.js";

const KINDS = ["artifact", "stage_status", "checkpoint", "checkpoint_deleted"];
const SCORES = 3; // of a stage that are shown; the tab Evals has all

export function lineage(panel, run, live) {
  const title = live.short;
  let redraw = null;
  const resized = new ResizeObserver(() => redraw?.());

  function show(view) {
    const stages = view.nodes.filter((n) => n.kind === "stage");
    const owner = new Map(view.edges.map((e) => [e.target, e.source])); // of what a stage made
    const reads = new Map(stages.map((s) => [s.id, view.edges.filter((e) => e.target === s.id).map((e) => e.source)]));
    // The report reads every result, so edges of results would hide all others.
    const edges = stages.flatMap((s) => reads.get(s.id).filter((id) => !id.endsWith(".results") || s.id === "report").map((id) => [owner.get(id) ?? id.split(".")[0], s.id]));
    const graph = layers(stages.map((s) => s.id), edges);
    const leads = (id) => Number(graph.edges.some(([source, target]) => source === id && target !== "report")); // the chain of models stands in the first row
    const made = (stage) => view.nodes.filter((n) => n.kind !== "stage" && owner.get(n.id) === stage);
    const boxes = new Map(stages.map((s) => [s.id, box(run, s, title, made(s.id), reads.get(s.id))]));
    const lines = svg("svg", { class: "graph-lines", "aria-hidden": "true" });
    const frame = h("div", { class: "graph" }, lines, graph.columns.map((column) => h("div", { class: "graph-column" }, column.toSorted((a, b) => leads(b) - leads(a)).map((id) => boxes.get(id)))));
    fill(panel, origin(run), h("div", { class: "graph-scroll", tabindex: "0", role: "region", "aria-label": "Graph of the stages" }, frame),
      h("div", { class: "row" }, copyButton(view.mermaid, "Copy as Mermaid"), h("span", { class: "hint" }, "Each box lists what its stage published, with the first digits of the SHA-256. Lines that a longer path implies are left out; the report reads all results.")));
    // The report reads everything: one line to it, from the column before, stands for all.
    const drawn = graph.edges.filter(([source, target]) => target !== "report" || graph.columns.at(-2)?.includes(source));
    redraw = () => draw(lines, frame, boxes, drawn);
    resized.disconnect();
    resized.observe(frame);
    redraw();
  }

  const { stop } = kept(panel, live, {
    what: "the lineage", read: () => get(path`/runs/${run.id}/lineage`), show, changes: (event) => KINDS.includes(event.kind),
  });
  return () => {
    resized.disconnect();
    stop();
  };
}

/** Where the run itself comes from. */
function origin(run) {
  const start = run.config.from;
  if (!run.forked_from && !start) return null;
  const of = (id) => h("a", { href: `/runs/${encodeURIComponent(id)}` }, id);
  return h("p", { class: "notice" }, run.forked_from && ["Forked from the run ", of(run.forked_from), ". "],
    start && ["Starts from a model that exists: ", h("code", { class: "break" }, JSON.stringify(start))]);
}

function box(run, stage, title, made, reads) {
  const artifacts = made.filter((n) => n.kind === "artifact" && !n.id.endsWith(".results"));
  const saved = made.filter((n) => n.kind === "checkpoint");
  const all = made.filter((n) => n.kind === "score");
  const scores = all.filter((n) => !n.id.includes("/")).slice(0, SCORES); // a slash: one of many tasks
  const elsewhere = run.stages.find((s) => s.name === stage.id)?.message.match(/^Taken over from run (r_[0-9a-f]+)/)?.[1];
  const inputs = reads.filter((id) => !id.endsWith(".results"));
  return h("section", { class: "graph-box", "aria-label": title(stage.id) },
    h("h3", null, title(stage.id)), chip(stage.status),
    elsewhere && h("a", { class: "small", href: `/runs/${encodeURIComponent(elsewhere)}` }, `taken over from ${elsewhere.slice(0, 8)}…`),
    inputs.length > 0 && h("p", { class: "graph-reads" }, "reads ", inputs.map((id) => id.split(".").pop()).join(", ")),
    artifacts.length > 0 && h("ul", { class: "plain-list" }, artifacts.map((a) => h("li", { title: `${a.path}\nsha256 ${a.sha256}` }, a.id.split(".").pop(), " ", h("code", { class: "dim" }, a.sha256.slice(0, 8))))),
    saved.length > 0 && h("a", { class: "small", href: "?tab=checkpoints" }, saved.length === 1 ? "1 checkpoint" : `${number(saved.length)} checkpoints`),
    all.length > 0 && h("ul", { class: "plain-list" }, scores.map((s) => h("li", { class: "break" }, s.label)),
      all.length > scores.length && h("li", null, h("a", { href: "?tab=evals" }, `${number(all.length - scores.length)} ${scores.length ? "more scores" : "scores"}`))));
}

function draw(lines, frame, boxes, edges) {
  const origin = frame.getBoundingClientRect();
  const place = (id) => boxes.get(id).getBoundingClientRect();
  lines.setAttribute("width", frame.scrollWidth);
  lines.setAttribute("height", frame.scrollHeight);
  fill(lines, edges.map(([source, target]) => {
    const [a, b] = [place(source), place(target)];
    const [x1, y1] = [a.right - origin.left, a.top + Math.min(a.height / 2, 28) - origin.top];
    const [x2, y2] = [b.left - origin.left, b.top + Math.min(b.height / 2, 28) - origin.top];
    const bend = Math.max(12, (x2 - x1) / 2);
    return svg("path", { d: `M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2 - 5} ${y2}M${x2 - 9} ${y2 - 4}L${x2 - 3} ${y2}L${x2 - 9} ${y2 + 4}` });
  }));
}
