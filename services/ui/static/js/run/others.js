// Which other runs are drawn beside this one.
import { get } from "../api.js";
import { fill, h } from "../dom.js";
import { chip, time } from "../format.js";
import { field } from "../controls.js";

const MOST = 9; // and this one: ten colours

export function picker(live, chosen, change) {
  const list = h("ul", { class: "plain-list pick-list" });
  const search = h("input", { name: "search", type: "search", placeholder: "Name or id", autocomplete: "off", maxlength: 100 });
  const note = h("p", { class: "small dim", role: "status" });
  const dialog = h("dialog", { "aria-labelledby": "pick-title" },
    h("form", { method: "dialog" }, h("h2", { id: "pick-title" }, "Draw other runs beside this one"), field("Search runs", search), list, note,
      h("div", { class: "actions" }, h("button", { type: "submit", class: "primary" }, "Done"))));
  let asked = 0;
  async function find() {
    const mine = ++asked;
    const { items } = await get("/runs", { search: search.value.trim(), limit: 20 });
    if (mine !== asked) return;
    const found = items.filter((run) => run.id !== live.id);
    fill(list, found.map((run) => {
      const box = h("input", { type: "checkbox", checked: chosen.others.includes(run.id) });
      box.addEventListener("change", () => {
        const others = box.checked ? [...chosen.others, run.id] : chosen.others.filter((id) => id !== run.id);
        if (others.length > MOST) {
          box.checked = false;
          note.textContent = `At most ${MOST} other runs can be drawn.`;
          return;
        }
        change({ others });
      });
      return h("li", null, h("label", { class: "check" }, box, h("span", { class: "break" }, run.name), chip(run.status), h("span", { class: "dim small" }, time(run.created_at, "ago"))));
    }));
    note.textContent = found.length ? "" : "No other run matches.";
  }
  search.addEventListener("input", find);
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
  return find();
}
