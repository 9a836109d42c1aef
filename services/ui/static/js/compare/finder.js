// A search for runs: type, and choose from what is found.
import { get, Problem } from "../api.js";
import { fill, h } from "../dom.js";
import { chip, time } from "../format.js";
import { field } from "../controls.js";

const PAUSE_MS = 200;
const SHOWN = 8;

/** @param {{placeholder: string, choose: (id: string) => void, chosen: () => string[]}} options `chosen` are left out */
export function finder({ placeholder, choose, chosen }) {
  const input = h("input", { type: "search", name: "find", placeholder, autocomplete: "off", spellcheck: "false", maxlength: 100 });
  const box = field("Add a run", input);
  const results = h("ul", { class: "found", "aria-label": "Runs found", hidden: true });
  let timer = 0;
  let last = 0;

  input.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(find, PAUSE_MS);
  });
  input.addEventListener("focus", find);
  input.addEventListener("keydown", (event) => {
    if (event.key === "Escape") close();
    if (event.key === "ArrowDown") focus(event, results.querySelector("button"));
    if (event.key === "Enter") results.querySelector("button")?.click();
  });
  results.addEventListener("keydown", (event) => {
    const item = event.target.closest("li");
    if (event.key === "Escape") { close(); input.focus(); }
    if (event.key === "ArrowDown") focus(event, item?.nextElementSibling?.querySelector("button"));
    if (event.key === "ArrowUp") focus(event, item?.previousElementSibling?.querySelector("button") ?? input);
  });
  document.addEventListener("click", (event) => !node.contains(event.target) && close());

  async function find() {
    const turn = ++last;
    try {
      const { items } = await get("/runs", { search: input.value.trim() || null, limit: SHOWN + chosen().length });
      if (turn !== last) return;
      box.wrong(null);
      const left = items.filter((run) => !chosen().includes(run.id)).slice(0, SHOWN);
      results.hidden = false;
      fill(results, left.length
        ? left.map((run) => h("li", null, h("button", { type: "button", onclick: () => take(run.id) }, h("span", { class: "break" }, run.name), chip(run.status), h("span", { class: "dim push" }, run.recipe, " · ", time(run.created_at, "ago")))))
        : h("li", { class: "dim" }, input.value.trim() ? "No run has this in its name or id." : "There are no other runs."));
    } catch (err) {
      if (!(err instanceof Problem)) throw err;
      box.wrong(err.lines.join("\n"));
    }
  }

  function take(id) {
    input.value = "";
    close();
    choose(id);
  }

  function close() {
    last++;
    clearTimeout(timer);
    results.hidden = true;
  }

  const node = h("div", { class: "finder" }, box, results);
  return { node, wrong: box.wrong };
}

function focus(event, target) {
  event.preventDefault();
  target?.focus();
}
