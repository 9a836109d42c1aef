// Ask again and again while the page is seen.
import { Problem } from "./api.js";
import { connection } from "./connection.js";

/**
 * Await `work` once, then repeat it every `ms`, not while the tab is hidden or the services do not answer, and at once when they do again.
 * The first failure is the caller's; later ones leave what is shown. Returns a function that stops it.
 */
export async function every(ms, work) {
  let timer = 0;
  let over = false;
  async function again() {
    clearTimeout(timer);
    if (over) return;
    if (!document.hidden && !connection.isLost) {
      try {
        await work();
      } catch (err) {
        if (!(err instanceof Problem)) throw err;
      }
    }
    if (!over) timer = setTimeout(again, ms);
  }
  connection.addEventListener("found", again);
  document.addEventListener("visibilitychange", again);
  try {
    await work();
  } finally {
    timer = setTimeout(again, ms);
  }
  return () => {
    over = true;
    clearTimeout(timer);
    connection.removeEventListener("found", again);
    document.removeEventListener("visibilitychange", again);
  };
}
