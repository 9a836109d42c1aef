// Which runs of a sweep are shown: those within the ranges that were chosen on axes. A range is dragged on its axis or typed.
import { fill, h } from "../dom.js";
import { number } from "../format.js";

const within = (value, { low, high }) => typeof value === "number" && value >= low && value <= high;

/**
 * @param {() => void} changed is called after each change
 * @returns {{node: HTMLElement, offer: Function, range: Function, set: Function, passes: Function}}
 */
export function chosenRuns(changed) {
  const ranges = new Map(); // name of an axis → {low, high}
  let axes = []; // {name, of}: numeric ones; `of` is the value of a run
  const fields = h("div", { class: "ranges" });
  const told = h("p", { class: "dim small", role: "status" });
  const clear = h("button", { type: "button", hidden: true, onclick: () => { ranges.clear(); apply(); } }, "Show all runs");
  const node = h("div", { class: "stack" }, h("div", { class: "row" }, told, clear),
    h("details", { class: "folded" }, h("summary", null, "Ranges as numbers"), fields));

  function apply() {
    for (const input of fields.querySelectorAll("input")) {
      const bound = ranges.get(input.dataset.axis)?.[input.dataset.end];
      if (document.activeElement !== input) input.value = Number.isFinite(bound) ? String(Number(bound.toPrecision(6))) : "";
    }
    changed();
  }

  function typed({ target }) {
    const [name, end, value] = [target.dataset.axis, target.dataset.end, target.value === "" ? NaN : Number(target.value)];
    const range = { low: -Infinity, high: Infinity, ...ranges.get(name) };
    range[end] = Number.isFinite(value) ? value : { low: -Infinity, high: Infinity }[end];
    set(name, range);
  }

  /** Choose the range of an axis; null for all of it. */
  function set(name, range) {
    if (!range || (range.low === -Infinity && range.high === Infinity)) ranges.delete(name);
    else ranges.set(name, range);
    apply();
  }

  const passes = (run) => axes.every(({ name, of }) => !ranges.has(name) || within(of(run), ranges.get(name)));

  return {
    node,
    set,
    passes,
    range: (name) => ranges.get(name),
    /** Offer these axes; ranges of others are forgotten. */
    offer(now) {
      const names = (of) => of.map(({ name }) => name).join("\n");
      const same = names(axes) === names(now);
      axes = now;
      for (const name of ranges.keys()) if (!axes.some((axis) => axis.name === name)) ranges.delete(name);
      if (!same) fill(fields, axes.map(({ name }) => h("fieldset", null, h("legend", { class: "break" }, name), ["low", "high"].map((end) =>
        h("label", null, end === "low" ? "from" : "to", h("input", { type: "number", step: "any", "data-axis": name, "data-end": end, "aria-label": `${name} ${end === "low" ? "from" : "to"}`, oninput: typed }))))));
      node.hidden = !axes.length;
    },
    /** Say how many of the runs are shown. */
    tell(runs) {
      const left = runs.filter(passes).length;
      clear.hidden = !ranges.size;
      told.textContent = ranges.size ? `${number(left)} of ${number(runs.length)} runs lie within the chosen ranges.` : "Drag along an axis to choose a range of its values.";
    },
  };
}
