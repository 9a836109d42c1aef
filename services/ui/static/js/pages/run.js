// The page of one run: what it is, its pipeline, its curves, and everything else in tabs.
import { absent } from "../absent.js";
import { named } from "../address.js";
import { Problem, get, path } from "../api.js";
import { fill, h } from "../dom.js";
import { chip, time } from "../format.js";
import { curves } from "../run/curves.js";
import { head } from "../run/head.js";
import { watch } from "../run/live.js";
import { pipeline } from "../run/pipeline.js";
import { VIEWS } from "../run/views.js";
import { tabs } from "../tabs.js";

export async function page(main) {
  const wanted = named();
  let live;
  try {
    live = await watch(wanted);
  } catch (err) {
    if (err.missing || err.status === 409) return missing(main, wanted, err);
    throw err;
  }
  main.classList.add("run-page");
  const views = Object.fromEntries(VIEWS.map((view) => [view.id, { title: view.title, show: (panel) => shown(view, panel, live) }]));
  const { bar, panel } = tabs(views, "About this run");
  main.append(head(live), pipeline(live), curves(live), h("section", { class: "stack", "aria-label": "More about this run" }, bar, panel));
  live.onGone(() => gone(main, live.run));
}

/** Loads the script of a tab and shows it, unless it was left before. Returns what stops it. */
function shown(view, panel, live) {
  let left = false;
  let stop = null;
  const place = h("div", { class: "stack" });
  fill(panel, place);
  (async () => {
    try {
      const script = await view.load();
      if (left) return;
      stop = await script[view.id](place, live.run, live);
      if (left) stop?.();
    } catch (err) {
      if (left) return;
      if (!(err instanceof Problem)) console.error(err);
      fill(place, h("p", { class: "wrong", role: "alert" }, err instanceof Problem ? err.lines.join("\n") : `This part of the page failed: ${err.message}`));
    }
  })();
  return () => {
    left = true;
    stop?.();
  };
}

function gone(main, run) {
  fill(main, absent("This run has been deleted", `“${run.name}” (${run.id}) was deleted while this page was open.`, ["/", "All runs"]));
}

async function missing(main, wanted, err) {
  document.title = "No such run · nanochat";
  const list = h("ul", { class: "plain-list" });
  const search = h("input", { name: "search", type: "search", "aria-label": "Search runs by name or id", placeholder: "Name or id of a run", maxlength: 100 });
  const form = h("form", { class: "row missing-search", role: "search" }, search, h("button", { type: "submit" }, "Search"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    find(search.value.trim());
  });
  main.append(h("div", { class: "panel empty" },
    h("h1", null, "No such run"),
    h("p", { class: "dim break" }, err.status === 409 ? err.message : `There is no run “${wanted.slice(0, 100)}” in this project. It may have been deleted, or belong to another project.`),
    form, list, h("a", { class: "button", href: "/" }, "All runs")));
  async function find(text) {
    const { items } = await get("/runs", { search: text, limit: 8 });
    fill(list, items.map((run) => h("li", { class: "row" }, h("a", { class: "break", href: path`/runs/${run.id}` }, run.name), chip(run.status), h("span", { class: "dim small" }, time(run.created_at, "ago")))));
    if (!items.length) fill(list, h("li", { class: "dim" }, "No run matches."));
  }
  await find("");
}
