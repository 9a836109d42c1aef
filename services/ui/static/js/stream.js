// Server-sent events over fetch, which, unlike EventSource, resumes with Last-Event-ID after every kind of failure.
// A hidden tab closes its stream: browsers allow six connections to a host, which all tabs share.
import { check } from "./api.js";
import { connection } from "./connection.js";

const PAUSE_MS = [500, 1000, 2000, 4000];
const SILENCE_MS = 45_000; // three keep-alives of the API

/**
 * Follow a stream until its event `end`, or until the returned function is called.
 * @param {string} path of the API, such as /runs/r_1/events
 * @param {(name: string, data: any, id: string) => void} take is called for every event, `message` if it has no name
 * @param {{after?: string | number, ended?: () => void}} [options]
 * @returns {() => void}
 */
export function follow(path, take, { after, ended } = {}) {
  let last = after === undefined ? "" : String(after);
  let failures = 0;
  let over = false;
  let running = null;
  let timer = 0;

  async function read() {
    const stop = (running = new AbortController());
    let silence = setTimeout(() => stop.abort(), SILENCE_MS);
    try {
      const headers = { Accept: "text/event-stream", ...(last ? { "Last-Event-ID": last } : {}) };
      const answer = await fetch(`/api/v1${path}`, { headers, signal: stop.signal, cache: "no-store" });
      await check(answer);
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        clearTimeout(silence);
        silence = setTimeout(() => stop.abort(), SILENCE_MS);
        failures = 0;
        const blocks = (rest + value).replaceAll("\r\n", "\n").split("\n\n");
        rest = blocks.pop();
        for (const block of blocks) if (deliver(block)) return finish();
      }
    } catch (err) {
      if (err.status === 404 || err.status === 403) return finish(); // it is gone, and no longer ours to read
      if (err.status === 400 || err.status === 422) last = ""; // an id that the server does not know: begin anew
      if (err.status === undefined && !stop.signal.aborted) connection.lost("The dashboard's server does not answer.");
    } finally {
      clearTimeout(silence);
    }
    if (!over && !document.hidden && running === stop) timer = setTimeout(read, PAUSE_MS[Math.min(failures++, PAUSE_MS.length - 1)]);
  }

  function deliver(block) {
    let name = "message";
    const data = [];
    for (const line of block.split("\n")) {
      if (line.startsWith("event:")) name = line.slice(6).trim();
      else if (line.startsWith("id:")) last = line.slice(3).trim();
      else if (line.startsWith("data:")) data.push(line.slice(5).replace(/^ /, ""));
    }
    if (name === "end") return true;
    if (data.length && !over) take(name, JSON.parse(data.join("\n")), last);
    return false;
  }

  function finish() {
    close();
    ended?.();
  }

  function close() {
    over = true;
    clearTimeout(timer);
    running?.abort();
    document.removeEventListener("visibilitychange", seen);
    connection.removeEventListener("found", seen);
  }

  function seen() {
    clearTimeout(timer);
    running?.abort();
    running = null;
    if (!document.hidden && !over) read();
  }

  document.addEventListener("visibilitychange", seen);
  connection.addEventListener("found", seen);
  read();
  return close;
}
