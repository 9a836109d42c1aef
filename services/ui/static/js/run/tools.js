// The controls above the large curve.
import { h, say } from "../dom.js";
import { act } from "../controls.js";
import { AXES } from "./axes.js";

export function tools({ chosen, range, training, metrics, keys, change, pick, csv, png }) {
  const choice = (label, value, options, take) => {
    const select = h("select", { "aria-label": label, title: label }, options.map(([id, text]) => h("option", { value: id }, text)));
    select.value = value;
    select.addEventListener("change", () => take(select.value));
    return select;
  };
  const check = (label, on, take) => {
    const box = h("input", { type: "checkbox", checked: on });
    box.addEventListener("change", () => take(box.checked));
    return h("label", { class: "check" }, box, label);
  };
  const curve = choice("Curve", chosen.curve, [["loss", "Loss and validation"], [chosen.curve, chosen.curve]].slice(0, chosen.curve === "loss" ? 1 : 2), (value) => change({ curve: value }));
  const slider = h("input", { type: "range", min: 0, max: 0.99, step: 0.01, value: chosen.smooth, "aria-label": "Smoothing" });
  const amount = h("output", { class: "small dim" }, chosen.smooth.toFixed(2));
  slider.addEventListener("input", () => {
    say(amount, Number(slider.value).toFixed(2));
    change({ smooth: Number(slider.value) });
  });
  const zoom = (label, sign, work) => h("button", { type: "button", class: "plain", "aria-label": label, title: label, onclick: work }, sign);
  const all = zoom("Show all", "⤢", () => range.reset());
  range.addEventListener("change", () => (all.disabled = !range.isZoomed));
  all.disabled = !range.isZoomed;
  const node = h("div", { class: "curve-tools", role: "toolbar", "aria-label": "Curve" },
    curve,
    choice("Stage", chosen.stage, [["", "All training stages"], ...training.map((s) => [s.name, s.short])], (value) => change({ stage: value })),
    choice("X axis", chosen.x, Object.entries(AXES).map(([id, axis]) => [id, `x: ${axis.label}`]), (value) => change({ x: value })),
    check("log x", chosen.logX, (on) => change({ logX: on })),
    check("log y", chosen.logY, (on) => change({ logY: on })),
    h("label", { class: "check" }, "smooth", slider, amount),
    h("button", { type: "button", onclick: pick }, "Other runs"),
    h("span", { class: "curve-zoom" }, zoom("Zoom in", "+", () => range.zoom(0.6)), zoom("Zoom out", "−", () => range.zoom(1 / 0.6)), all),
    h("span", { class: "curve-zoom" }, act("CSV", csv, { class: "plain", title: "Download the points as CSV" }), act("PNG", png, { class: "plain", title: "Download the curve as an image" })));
  let known = "";
  return {
    node,
    /** Offer the metrics that the run has reported. */
    show(points) {
      const reported = metrics.filter((m) => keys.includes(m.key) && points.series.some((s) => s.key === m.key && s.points.length));
      const state = reported.map((m) => m.key).join();
      if (state === known) return;
      known = state;
      curve.replaceChildren(h("option", { value: "loss" }, "Loss and validation"), ...reported.filter((m) => m.key !== "loss").map((m) => h("option", { value: m.key }, m.title)));
      curve.value = chosen.curve;
    },
  };
}
