// One run, followed: one stream of events for the whole page, and the run fetched anew when they come.
import { Problem, get, path } from "../api.js";
import { connection } from "../connection.js";
import { FINISHED } from "../format.js";
import { follow } from "../stream.js";

const PAUSE_MS = 1000; // between two fetches of the run
const UNFOLLOWED_MS = 10_000; // a finished run can be retried, renamed or deleted elsewhere
const PAGE = 1000;
// All but metric, progress and log, which are many; GET /metrics and GET /logs have what those say.
const TOLD = [
  "run_submitted", "run_status", "run_changed", "run_forked", "run_released", "stage_status", "stage_taken_over", "budget_warning", "budget_spent",
  "checkpoint", "checkpoint_deleted", "promoted", "demoted", "artifact", "eval", "sample", "warning", "error", "line_quarantined", "events_lost", "webhook_off", "sweep_compared",
];

/** Raises the Problem 404 if there is no such run. `wanted` is an id or a name. */
export async function watch(wanted) {
  const [run, catalog] = await Promise.all([get(path`/runs/${wanted}`), get("/catalog")]);
  return new Live(run, catalog);
}

export class Live {
  #takers = { run: new Set(), event: new Set(), gone: new Set(), reset: new Set() };
  #told = []; // events of the kinds TOLD
  #begun; // a promise: they are read
  #from = 0; // newest event that is known, after which the stream goes on
  #stop = null;
  #timer = 0;
  #fetchedAt = 0;
  #gone = false;
  #stages; // of the catalog, by name

  constructor(run, catalog) {
    this.run = run;
    this.id = run.id;
    this.catalog = catalog;
    this.#stages = new Map(catalog.stages.map((stage) => [stage.name, stage]));
    connection.addEventListener("found", () => {
      this.refresh();
      this.#give("reset");
    });
    document.addEventListener("visibilitychange", () => !document.hidden && this.#soon());
    this.#begun = this.#begin();
  }

  async #begin() {
    try {
      this.#told = await this.#pages(0);
      this.#from = this.#told.at(-1)?.id ?? 0;
    } catch (err) {
      if (!(err instanceof Problem)) throw err; // the stream then begins with the first event
    }
    this.#follow();
    this.#soon();
  }

  onRun = (fn) => this.#take("run", fn);
  onEvent = (fn) => this.#take("event", fn);
  onGone = (fn) => this.#take("gone", fn);
  onReset = (fn) => this.#take("reset", fn);

  /** The name of a stage in full, and where there is little room. */
  title = (stage) => this.#stages.get(stage)?.title ?? stage;
  short = (stage) => this.#stages.get(stage)?.short ?? stage;
  trains = (stage) => Boolean(this.#stages.get(stage)?.trains);

  /** All events so far but those of the kinds metric, progress and log, oldest first. */
  async past() {
    await this.#begun;
    return this.#told.slice();
  }

  /** Fetch the run now. */
  async refresh() {
    clearTimeout(this.#timer);
    this.#timer = 0;
    try {
      this.#fetchedAt = performance.now();
      this.run = await get(path`/runs/${this.id}`);
      this.#give("run", this.run);
    } catch (err) {
      if (!(err instanceof Problem)) throw err;
      if (err.status === 404) return this.#end();
    }
    await this.#begun;
    this.#follow();
    if (!this.#stop) this.#soon(UNFOLLOWED_MS);
    return this.run;
  }

  #take(what, fn) {
    this.#takers[what].add(fn);
    return () => this.#takers[what].delete(fn);
  }

  #give(what, value) {
    for (const fn of [...this.#takers[what]]) fn(value);
  }

  #follow() {
    if (this.#stop || this.#gone || FINISHED.has(this.run.status)) return;
    this.#stop = follow(path`/runs/${this.id}/events`, (name, event) => this.#hear(name, event), {
      after: this.#from,
      ended: () => {
        this.#stop = null;
        this.#soon();
      },
    });
  }

  #hear(name, event) {
    if (name === "gap" || event.id === undefined) return;
    this.#from = Math.max(this.#from, event.id);
    if (TOLD.includes(event.kind)) this.#told.push(event);
    this.#give("event", event);
    this.#soon();
  }

  #soon(ms = PAUSE_MS) {
    if (this.#gone) return;
    const wait = Math.max(0, this.#fetchedAt + ms - performance.now());
    if (this.#timer && ms > PAUSE_MS) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => (document.hidden ? (this.#timer = 0) : this.refresh()), wait);
  }

  #end() {
    this.#gone = true;
    this.#stop?.();
    this.#give("gone");
  }

  async #pages(after) {
    const all = [];
    for (;;) {
      const { items, next_after: next } = await get(path`/runs/${this.id}/events`, { kinds: TOLD, after, limit: PAGE });
      all.push(...items);
      if (items.length < PAGE) return all;
      after = next;
    }
  }
}
