// The runs of the list, kept up to date. All of them are in memory, so that search, filters and sorting need no request.
import { get } from "../api.js";
import { FINISHED } from "../format.js";
import { every } from "../repeat.js";

const POLL_MS = 2000;
const AGAIN_MS = 60_000; // everything is asked for again, which shows what was deleted
const FIRST = 60; // runs of the first answer, which fill a screen
const PAGE = 200; // the API's most
const MOST = 5000; // in memory, about 1 kB each
const BUSY = ["QUEUED", "RUNNING", "PAUSED"];

/**
 * @param {{archived: boolean, changed: (runs: object[], complete: boolean) => void}} options `changed` is called with the runs,
 *   newest first, whenever one of them is another; `complete` is false while older ones are not there
 * @returns {Promise<{stop: () => void, put: (run: object) => void, drop: (id: string) => void}>} once the first runs are there
 */
export async function openStore({ archived, changed }) {
  const runs = new Map();
  const texts = new Map(); // id → JSON, to tell which are other than before
  let complete = false;
  let over = false;

  function put(given) {
    const run = filled(given);
    const text = JSON.stringify(run);
    if (texts.get(run.id) === text) return false;
    texts.set(run.id, text);
    runs.set(run.id, run);
    return true;
  }

  function drop(id) {
    texts.delete(id);
    return runs.delete(id);
  }

  function tell() {
    if (!over) changed([...runs.values()].sort((a, b) => (a.created_at < b.created_at ? 1 : -1)), complete);
  }

  async function all() {
    const gone = new Set(runs.keys());
    let cursor = null;
    let seen = 0;
    do {
      const page = await get("/runs", { archived, limit: seen ? PAGE : FIRST, cursor });
      for (const run of page.items) gone.delete(run.id);
      const differs = page.items.map(put).some(Boolean);
      if (differs || !page.next_cursor) tell();
      seen += page.items.length;
      cursor = page.next_cursor;
    } while (cursor && seen < MOST && !over);
    complete = !cursor;
    gone.forEach(drop);
    tell();
  }

  async function look() {
    const pages = await Promise.all([get("/runs", { archived, limit: FIRST }), get("/runs", { archived, limit: PAGE, status: BUSY })]);
    const items = pages.flatMap((page) => page.items);
    const there = new Set(items.map((run) => run.id));
    const ended = [...runs.values()].filter((run) => !FINISHED.has(run.status) && !there.has(run.id));
    for (const run of ended) items.push(...(await get("/runs", { archived, search: run.id })).items);
    if (items.map(put).some(Boolean)) tell();
  }

  let asked = 0;
  const first = await get("/runs", { archived, limit: FIRST });
  first.items.forEach(put);
  complete = !first.next_cursor;
  tell();
  const polling = every(POLL_MS, async () => {
    if (!asked ? complete : Date.now() - asked < AGAIN_MS) return look();
    asked = Date.now();
    await all();
  });
  return {
    put: (run) => put({ ...runs.get(run.id), ...run }) && tell(),
    drop: (id) => drop(id) && tell(),
    stop() {
      over = true;
      polling.then((stop) => stop());
    },
  };
}

/** A run of an API that tells less of it. */
function filled(run) {
  const { progress } = run.current ?? {};
  const share = progress?.total ? progress.done / progress.total : null;
  return {
    fraction: run.stages_total ? (run.stages_done + (FINISHED.has(run.status) ? 0 : (share ?? 0))) / run.stages_total : null,
    eta_s: null, why: run.detail, queue_position: null, figures: {}, budget: {}, archived_at: null,
    ...run,
    current: run.current && { ...run.current, progress: progress && { fraction: share, ...progress } },
  };
}
