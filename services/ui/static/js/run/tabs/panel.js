// What the tabs of a run share: loading into a panel, and streams of its events.
import { Problem } from "../../api.js";
import { fill, h } from "../../dom.js";

const BATCH_MS = 60;
const REREAD_MS = 500; // after an event: several come together

/** Run `load`; while it takes, the panel says so, and its Problem is shown in the panel with a button to try again. */
export async function load(panel, what, work) {
  fill(panel, h("p", { class: "dim", role: "status" }, `Loading ${what} …`));
  try {
    await work();
  } catch (err) {
    if (!(err instanceof Problem)) throw err;
    fill(panel, h("div", { class: "notice bad stack", role: "alert" }, err.lines.join("\n"), h("div", null, h("button", { type: "button", onclick: () => load(panel, what, work) }, "Try again"))));
  }
}

/**
 * Read something and show it, and again soon after each event that changes it. What is shown stays while it cannot be read again.
 * @param {{what: string, read: () => Promise<any>, show: (found: any) => void, changes: (event: object) => boolean}} options `what` is loaded, in words
 * @returns {{refresh: () => Promise<void>, stop: () => void}}
 */
export function kept(panel, live, { what, read, show, changes }) {
  let timer = 0;
  let over = false;
  async function refresh() {
    const found = await read();
    if (!over) show(found);
  }
  async function again() {
    timer = 0;
    try {
      await refresh();
    } catch (err) {
      if (!(err instanceof Problem)) throw err;
    }
  }
  const soon = () => (timer ||= setTimeout(again, REREAD_MS));
  const stops = [live.onEvent((event) => changes(event) && soon()), live.onReset(soon)];
  load(panel, what, async () => {
    await live.past(); // every event after these comes through onEvent
    await refresh();
  });
  return {
    refresh,
    stop() {
      over = true;
      clearTimeout(timer);
      for (const stop of stops) stop();
    },
  };
}

/**
 * Events of the run of these kinds, those of before and new ones, each once, in batches. Not for the kinds that come with every step.
 * @param {(events: object[]) => void} take
 * @returns {() => void} stops it
 */
export function events(live, kinds, take) {
  const wanted = new Set(kinds);
  const seen = new Set();
  let batch = [];
  let timer = 0;
  let over = false;
  const add = (found) => {
    const fresh = found.filter((e) => wanted.has(e.kind) && !seen.has(e.id));
    if (over || !fresh.length) return;
    for (const e of fresh) seen.add(e.id);
    batch.push(...fresh);
    timer ||= setTimeout(() => {
      const some = batch;
      [batch, timer] = [[], 0];
      take(some);
    }, BATCH_MS);
  };
  const past = () => live.past().then(add, () => {}); // asked again when the API is back
  const stops = [live.onEvent((e) => add([e])), live.onReset(past)];
  past();
  return () => {
    over = true;
    clearTimeout(timer);
    for (const stop of stops) stop();
  };
}

/** A labelled <select>. `options`: [value, text] or [group, [[value, text]]]. */
export function choice(label, options, value, onchange) {
  const select = h("select", { "aria-label": label, onchange: () => onchange(select.value) }, choices(options));
  select.value = value;
  return select;
}

export const choices = (options) =>
  options.map(([id, text]) => (Array.isArray(text) ? h("optgroup", { label: id }, choices(text)) : h("option", { value: id }, text)));

/** A table of these columns: a text, or [text, "num"]. */
export function table(caption, columns, ...bodies) {
  const head = columns.map((c) => (Array.isArray(c) ? h("th", { scope: "col", class: c[1] }, c[0]) : h("th", { scope: "col" }, c)));
  return h("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": caption }, h("table", null, h("caption", { class: "unseen" }, caption), h("thead", null, h("tr", null, head)), bodies));
}
