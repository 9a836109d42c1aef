// The newest figures and the newest sample, beside the large curve.
import { fill, h, keyed, say } from "../dom.js";
import { number } from "../format.js";
import { newest, reached } from "./stages.js";

const SHOWN = ["loss", "val_bpb", "val_loss", "reward", "pass_at_1", "core", "tok_per_s", "mfu", "data_wait_pct", "grad_norm", "lrm", "mem_gib"];
const CHARS = 240;

export function figures(live) {
  const rows = h("dl", { class: "figures" });
  const of = h("p", { class: "dim small" });
  const sample = h("div", { class: "stack sample", hidden: true });
  const node = h("aside", { class: "panel stack run-side", "aria-label": "Newest figures" }, h("h2", null, "Newest figures"), of, rows, sample);

  function show(run) {
    const busy = run.stages.findLast((s) => s.started_at && Object.keys(s.latest).length);
    say(of, busy ? `${live.short(busy.name)}${busy.progress ? `, ${reached(busy.progress)}` : ""}` : "No figures yet.");
    const known = live.catalog.metrics.filter((m) => SHOWN.includes(m.key)).map((metric) => ({ metric, at: newest(run, metric.key) })).filter((x) => x.at);
    keyed(rows, known, (x) => x.metric.key, ({ metric }) => h("div", null, h("dt", null, metric.title), h("dd", null, h("b"), h("span", { class: "dim small" }))), (node, { metric, at }) => {
      const [value, unit] = node.lastChild.children;
      say(value, number(at.value));
      say(unit, metric.unit ? ` ${metric.unit}` : "");
      node.title = `of ${live.short(at.stage.name)}`;
    });
  }

  async function text() {
    const last = (await live.past()).findLast((event) => event.kind === "sample");
    sample.hidden = !last;
    if (!last) return;
    const { step, prompt, text } = last.data;
    const more = document.getElementById("tab-samples");
    fill(sample, h("h2", null, `Sample at step ${number(step)}`),
      h("p", { class: "small break sample-text" }, h("span", { class: "dim" }, prompt), text.slice(0, CHARS), text.length > CHARS && "…"),
      more && h("button", { type: "button", class: "plain", onclick: () => more.click() }, "All samples"));
  }

  show(live.run);
  live.onRun(show);
  live.onEvent((event) => event.kind === "sample" && text());
  text();
  return node;
}
