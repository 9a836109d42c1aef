// Tabs, the chosen one in the address.
import { param, setParam } from "./address.js";
import { fill, h } from "./dom.js";

/** `views`: {id: {title, show(panel) → stop function or nothing}}; `label` is for a screen reader. */
export function tabs(views, label) {
  const ids = Object.keys(views);
  const panel = h("div", { role: "tabpanel", tabindex: "0", class: "stack" });
  let stop = null;
  const buttons = ids.map((id) =>
    h("button", { type: "button", role: "tab", id: `tab-${id}`, "aria-controls": "tab-panel", onclick: () => choose(id, true) }, views[id].title),
  );
  panel.id = "tab-panel";
  const bar = h("div", { class: "tabs", role: "tablist", "aria-label": label }, buttons);
  bar.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const next = buttons[(buttons.indexOf(document.activeElement) + step + ids.length) % ids.length];
    next.focus();
    next.click();
  });
  function choose(id, byHand) {
    stop?.();
    buttons.forEach((button, i) => {
      button.setAttribute("aria-selected", String(ids[i] === id));
      button.tabIndex = ids[i] === id ? 0 : -1;
    });
    panel.setAttribute("aria-labelledby", `tab-${id}`);
    if (byHand) setParam("tab", id === ids[0] ? null : id);
    fill(panel);
    stop = views[id].show(panel) ?? null;
  }
  const wanted = param("tab");
  choose(ids.includes(wanted) ? wanted : ids[0], false);
  return { bar, panel };
}
