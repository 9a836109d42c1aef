// The list of sweeps.
import { get } from "../api.js";
import { fill, h } from "../dom.js";
import { time } from "../format.js";
import { empty } from "../parts.js";
import { kind, progress, status, total } from "../sweeps/state.js";
import { every } from "../repeat.js";
import { param, setParam } from "../address.js";
import { table } from "../table.js";

const POLL_MS = 3000;
const PAGE = 50;

const COLUMNS = [
  { id: "name", title: "Sweep", value: (sweep) => sweep.name, cell: (sweep) => [h("a", { href: `/sweeps/${sweep.id}`, class: "break" }, sweep.name), h("code", { class: "sub" }, sweep.id)] },
  { id: "status", title: "Status", value: (sweep) => sweep.status, cell: status },
  { id: "progress", title: "Runs", value: total, cell: progress },
  { id: "kind", title: "Kind", value: (sweep) => sweep.kind, cell: kind },
  { id: "recipe", title: "Recipe", value: (sweep) => sweep.recipe, cell: (sweep) => h("span", { class: "break" }, sweep.recipe) },
  { id: "parallel", title: "At once", num: true, hint: "How many of its runs may go on at once", value: (sweep) => sweep.max_parallel, cell: (sweep) => sweep.max_parallel ?? "all" },
  { id: "created", title: "Submitted", num: true, value: (sweep) => sweep.created_at, cell: (sweep) => time(sweep.created_at, "ago") },
];

export async function page(main) {
  let pages = 1;
  const archived = h("input", { type: "checkbox", id: "archived" });
  archived.checked = param("archived") === "1";
  const list = table({ label: "Sweeps", key: (sweep) => sweep.id, columns: COLUMNS });
  const more = h("button", { type: "button", hidden: true, onclick: () => { pages += 1; show(); } }, "Show older ones");
  const place = h("div", { class: "stack" });
  main.append(
    h("div", { class: "page-head" }, h("h1", null, "Sweeps"), h("div", { class: "row push" }, archived, h("label", { for: "archived" }, "Archived ones"))),
    place);
  archived.addEventListener("change", () => {
    setParam("archived", archived.checked ? "1" : null);
    show();
  });

  async function show() {
    const items = [];
    let cursor = null;
    for (let page = 0; page < pages && (page === 0 || cursor); page++) {
      const found = await get("/sweeps", { limit: PAGE, archived: archived.checked ? "true" : null, cursor });
      items.push(...found.items);
      cursor = found.next_cursor;
    }
    more.hidden = !cursor;
    if (!items.length) return fill(place, none(archived.checked));
    if (!list.node.isConnected) fill(place, list.node, h("div", null, more));
    list.show(items);
  }
  await every(POLL_MS, show);
}

function none(archived) {
  if (archived) return empty("No archived sweeps", h("p", { class: "dim" }, "A finished sweep can be archived on its page. Its runs are archived with it."));
  return empty("No sweeps yet",
    h("p", { class: "dim" }, "A sweep starts many runs of one recipe that differ in a few fields, and compares what they reach. Plan it before you start it:"),
    h("pre", { class: "code", tabindex: "0" }, "nanochat sweep plan tiny --grid model.depth=2,4 --grid base.warmup_ratio=0,0.1\nnanochat sweep submit tiny --grid model.depth=2,4 --grid base.warmup_ratio=0,0.1 --max-parallel 2"));
}
