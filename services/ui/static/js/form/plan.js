// The plan beside the form: what the run would do, take and cost, asked for anew while one types.
import { Problem, post } from "../api.js";
import { fill, h } from "../dom.js";
import { flops, number } from "../format.js";
import { cost, duration, hardware, hours } from "./cost.js";

const PAUSE_MS = 300; // without a further change

/**
 * @param {{request: () => object | null, titles: Map<string, string>, told: (state: {plan: object | null, errors: object[]}) => void}} options
 *   `request` is the body, null while it cannot be sent; `told` hears of each answer, and at once when the old one no longer holds
 * @returns {{node: HTMLElement, ask: () => void, asked: () => Promise<void>}}
 */
export function planPanel({ request, titles, told }) {
  const state = h("p", { class: "plan-state", role: "status" }, "Planning…");
  const figures = h("div", { class: "stack plan-figures" });
  const node = h("section", { class: "panel stack plan", "aria-label": "Plan" }, h("div", { class: "row" }, h("h2", null, "Plan"), state), figures);
  let timer = 0;
  let running = null;
  let last = Promise.resolve();

  function ask() {
    running?.abort();
    clearTimeout(timer);
    node.classList.add("outdated");
    state.className = "plan-state dim";
    state.textContent = "Planning…";
    told({ plan: null, errors: [] });
    last = new Promise((resolve) => (timer = setTimeout(() => now().finally(resolve), PAUSE_MS)));
  }

  async function now() {
    const body = request();
    if (!body) return failed("Not planned: mend the marked field first.", []);
    const mine = (running = new AbortController());
    try {
      const plan = await post("/runs/plan", body, { signal: mine.signal });
      if (mine !== running) return;
      show(plan);
      told({ plan, errors: [] });
    } catch (err) {
      if (mine.signal.aborted || mine !== running) return;
      if (!(err instanceof Problem)) throw err;
      if (err.status === 422 || err.status === 400) failed(err.errors.length === 1 ? "Would be refused: 1 field is wrong." : `Would be refused: ${err.errors.length || "some"} fields are wrong.`, err.errors.length ? err.errors : [{ field: "recipe", message: err.message }]);
      else failed(`Not planned: ${err.message}`, []);
    }
  }

  function failed(text, errors) {
    fill(figures);
    node.classList.remove("outdated");
    state.className = "plan-state wrong";
    state.textContent = text;
    told({ plan: null, errors });
  }

  function show(plan) {
    node.classList.remove("outdated");
    const { figures: on } = plan;
    state.className = "plan-state chip good";
    state.textContent = "This would be accepted";
    state.dataset.symbol = "✓";
    fill(figures,
      h("div", { class: "plan-head" }, h("strong", null, duration(on)), h("strong", null, cost(on))),
      h("p", { class: "dim small" }, `on ${hardware(on)}. `, measured(on)),
      plan.warnings.map((text) => h("p", { class: "notice warn small" }, text)),
      h("dl", { class: "facts" }, fact("parameters", number(on.params, 3)), fact("training", flops(on.total_flops)), fact("stages", String(plan.stages.length))),
      stages(plan));
  }

  function stages({ stages: all, figures: on }) {
    const known = new Map([...on.stages, ...on.others].map((stage) => [stage.stage, stage]));
    const title = ({ name }) => titles.get(name) ?? name;
    const planned = all.filter(({ name }) => known.has(name));
    const columns = [
      ["Steps", (stage) => stage.steps && number(stage.steps)],
      ["Tokens", (stage) => stage.tokens && number(stage.tokens, 3)],
      ["Time", (stage) => Number.isFinite(stage.hours) && hours(stage.hours).replace("about ", "")],
      ["Memory", (stage) => memory(stage, on)],
    ].filter(([, cell]) => planned.some(({ name }) => cell(known.get(name))));
    return [
      h("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": "Stages of the plan" }, h("table", { "aria-label": "Stages of the plan" },
        h("thead", null, h("tr", null, h("th", { scope: "col" }, "Stage"), columns.map(([name]) => h("th", { scope: "col", class: "num" }, name)))),
        h("tbody", null, planned.map((stage) => h("tr", null, h("th", { scope: "row" }, title(stage)), columns.map(([, cell]) => h("td", { class: "num" }, cell(known.get(stage.name)) || "")))))))
      , h("p", { class: "dim small" }, "Also: ", all.filter(({ name }) => !known.has(name)).map(title).join(", "), "."),
    ];
  }

  return { node, ask, asked: () => last };
}

const fact = (name, value) => h("div", null, h("dt", null, name), h("dd", null, value));

function measured(on) {
  const n = [...on.stages, ...on.others].filter((stage) => stage.source !== "estimate").length;
  const planned = n ? `${n} ${n === 1 ? "stage" : "stages"} as measured in earlier runs here` : "Estimated, not measured here yet";
  return on.hours === null ? "Nothing is known of its speed." : `${planned}; hours and dollars are of training alone.`;
}

function memory(stage, on) {
  if (!Number.isFinite(stage.peak_gib)) return "";
  const text = `${stage.peak_gib.toFixed(1)} of ${Math.round(on.gpu_memory_gib)} GiB`;
  return stage.fits === false ? h("span", { class: "chip bad", "data-symbol": "✗" }, `${text}, does not fit`) : text;
}
