// The list of runs.
import { mayOperate } from "../api.js";
import { fill, h, say } from "../dom.js";
import { actionBar } from "../runs/actions.js";
import { COLUMNS } from "../runs/columns.js";
import { noRuns, noneArchived, noneLeft } from "../runs/empty.js";
import { filters } from "../runs/filters.js";
import { openStore } from "../runs/store.js";
import { readStageNames } from "../stage_names.js";
import { table } from "../table.js";

export async function page(main) {
  let runs = [];
  let complete = false;
  let store = null;

  const told = h("p", { class: "dim small", role: "status" });
  const place = h("div", null, h("div", { class: "skeleton tall" }));
  const chosen = filters(() => (chosen.wanted.archived === archived ? show() : open()));
  let archived = chosen.wanted.archived;
  const list = table({
    label: "Runs", columns: COLUMNS,
    key: (run) => run.id, name: (run) => run.name, sort: "-created", select: true, onselect: () => actions.update(),
    row: (run) => ({ "data-status": run.status }),
  });
  list.node.classList.add("runs");
  list.node.addEventListener("click", (event) => {
    const label = event.target.closest("[data-label]");
    if (label) chosen.choose("label", label.dataset.label);
  });
  const actions = actionBar({ selected: () => runs.filter((run) => list.selected.has(run.id)), clear: () => list.clear(), store: () => store });
  main.append(
    h("div", { class: "page-head" }, h("h1", null, "Runs"), told, mayOperate() && h("a", { class: "button primary push", href: "/new" }, "New run")),
    h("div", { class: "stack runs-tools" }, chosen.node, actions.node),
    place,
  );

  function show() {
    const left = chosen.apply(runs);
    const all = `${runs.length.toLocaleString("en")}${complete ? "" : "+"} ${runs.length === 1 ? "run" : "runs"}`;
    say(told, !runs.length ? "" : left.length === runs.length ? all : `${left.length.toLocaleString("en")} of ${all}`);
    list.show(left);
    actions.update();
    const none = runs.length ? !left.length && noneLeft(runs.length, () => chosen.clear()) : archived ? noneArchived() : noRuns();
    if (none) fill(place, none);
    else if (!list.node.isConnected) fill(place, list.node);
    chosen.node.hidden = !runs.length && !archived;
  }

  async function open() {
    store?.stop();
    archived = chosen.wanted.archived;
    list.clear();
    store = await openStore({
      archived,
      changed(all, whole) {
        [runs, complete] = [all, whole];
        show();
      },
    });
  }

  await Promise.all([readStageNames(), open()]);
}
