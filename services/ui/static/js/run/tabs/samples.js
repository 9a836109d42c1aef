// What the model wrote to the fixed prompts, at two steps side by side.
import { fill, h } from "../../dom.js";
import { number } from "../../format.js";
import { param, setParam } from "../../address.js";
import { choice, choices, events } from "./panel.js";

const LIMIT = 200; // prompts of one comparison that are shown

export function samples(panel, run, live) {
  const moments = new Map(); // "stage:step" → {stage, step, texts: Map prompt → {text, reward}}
  let chosen = [param("samples_a") ?? "", param("samples_b") ?? ""]; // "" follows: the first and the newest of one stage
  const selects = ["a", "b"].map((side, i) => choice(i ? "Right: step" : "Left: step", [], "", (value) => {
    chosen[i] = value;
    setParam(`samples_${side}`, value);
    show();
  }));
  const grid = h("div", { class: "samples", role: "table", "aria-label": "Samples" });
  const bar = h("div", { class: "row sample-bar" }, selects[0], h("span", { class: "dim", "aria-hidden": "true" }, "against"), selects[1]);

  const title = live.short;
  const order = (stage) => run.stages.findIndex((s) => s.name === stage);

  function take(found) {
    for (const { stage, data } of found) {
      const key = `${stage}:${data.step}`;
      if (!moments.has(key)) moments.set(key, { key, stage, step: data.step, texts: new Map() });
      moments.get(key).texts.set(data.prompt, { text: data.text, reward: data.reward });
    }
    options();
    show();
  }

  /** The first and the newest step of a stage, the first stage that asked the same prompts at both; without one, of the first stage. */
  function usual() {
    const by = [...Map.groupBy(moments.values(), (m) => m.stage)].sort(([a], [b]) => order(a) - order(b));
    const ends = by.map(([, found]) => found.toSorted((a, b) => a.step - b.step)).map((found) => [found[0], found.at(-1)]);
    const fixed = ends.find(([a, b]) => a !== b && [...a.texts.keys()].some((prompt) => b.texts.has(prompt)));
    return (fixed ?? ends[0]).map((m) => m.key);
  }

  function options() {
    const by = [...Map.groupBy(moments.values(), (m) => m.stage)].sort(([a], [b]) => order(a) - order(b));
    const groups = by.map(([stage, found]) => [title(stage), found.toSorted((a, b) => a.step - b.step).map((m) => [m.key, found.length === 1 ? title(stage) : `${title(stage)}, step ${number(m.step)}`])]);
    selects.forEach((select, i) => fill(select, choices([["", i ? "Newest step" : "First step"], ...groups])));
    selects.forEach((select, i) => (select.value = moments.has(chosen[i]) ? chosen[i] : ""));
  }

  function show() {
    if (!moments.size) return;
    const standard = usual();
    const [a, b] = chosen.map((key, i) => moments.get(moments.has(key) ? key : standard[i]));
    const prompts = [...new Set([...b.texts.keys(), ...a.texts.keys()])];
    const head = [a, b].map((m) => `${title(m.stage)}, step ${number(m.step)}`);
    fill(panel, bar,
      fill(grid, h("div", { role: "row", class: "sample-row sample-head" }, ["Prompt", ...head].map((text) => h("div", { role: "columnheader" }, text))),
        prompts.slice(0, LIMIT).map((prompt) => h("div", { role: "row", class: "sample-row" }, h("div", { role: "rowheader", class: "sample-prompt" }, prompt), said(a, prompt, head[0]), a === b ? h("div", { role: "cell" }) : said(b, prompt, head[1])))),
      prompts.length > LIMIT && h("p", { class: "hint" }, `The first ${LIMIT} of ${number(prompts.length)} prompts.`),
      a === b && h("p", { class: "hint" }, "There is only one step so far. Choose another one to compare with."));
  }

  fill(panel, h("div", { class: "empty dim" }, "No samples yet. A training stage writes some every so many steps (sample_every), and each evaluation some of its answers."));
  return events(live, ["sample"], take);
}

function said(moment, prompt, head) {
  const found = moment.texts.get(prompt);
  return h("div", { role: "cell", class: "sample-text", dataset: { head } }, found ? found.text.replace(/^ /, "") || h("span", { class: "dim" }, "(nothing)") : h("span", { class: "dim" }, "not asked"),
    found && typeof found.reward === "number" && h("span", { class: "sub" }, `reward ${number(found.reward)}`));
}
