// The runs of the list, kept up to date by one stream. All of them are in memory, so that search, filters and sorting need no request.
import { get } from "../api.js";
import { follow } from "../stream.js";

const FIRST = 60; // runs of the first answer, which fill a screen
const PAGE = 200; // the API's most
const MOST = 5000; // in memory, about 1 kB each

/**
 * @param {{archived: boolean, changed: (runs: object[], complete: boolean) => void}} options `changed` is called with the runs,
 *   newest first, whenever one of them is another; `complete` is false while older ones are not there
 * @returns {Promise<{stop: () => void, put: (run: object) => void, drop: (id: string) => void}>} once the first runs are there
 */
export async function openStore({ archived, changed }) {
  const runs = new Map();
  let complete = false;
  let over = false;
  let waiting = 0;

  function put(run) {
    if (Boolean(run.archived_at) !== archived) return drop(run.id);
    runs.set(run.id, run);
    soon();
  }

  function drop(id) {
    if (runs.delete(id)) soon();
  }

  /** Several changes of one moment are shown at once. */
  function soon() {
    waiting ||= requestAnimationFrame(tell);
  }

  function tell() {
    cancelAnimationFrame(waiting);
    waiting = 0;
    if (!over) changed([...runs.values()].sort((a, b) => (a.created_at < b.created_at ? 1 : -1)), complete);
  }

  /** Everything, page by page. What is not there any more is dropped. */
  async function load() {
    const gone = new Set(runs.keys());
    let cursor = null;
    let seen = 0;
    do {
      const page = await get("/runs", { archived, limit: seen ? PAGE : FIRST, cursor });
      if (over) return;
      for (const run of page.items) {
        gone.delete(run.id);
        runs.set(run.id, run);
      }
      seen += page.items.length;
      cursor = page.next_cursor;
      complete = !cursor;
      tell();
    } while (cursor && seen < MOST);
    gone.forEach(drop);
  }

  const first = await get("/runs", { archived, limit: FIRST });
  first.items.forEach((run) => runs.set(run.id, run));
  complete = !first.next_cursor;
  tell();
  const stop = follow("/runs", (name, data) => {
    if (name === "run") put(data);
    else if (name === "gone") drop(data.id);
    else if (name === "ready" && !data.resumed) load().catch(() => {}); // the stream comes again when the services do
  });
  return {
    put: (run) => put({ ...runs.get(run.id), ...run }),
    drop,
    stop() {
      over = true;
      stop();
    },
  };
}
