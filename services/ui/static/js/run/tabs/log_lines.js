// The lines of a run's log as a list that grows: levels, gaps, filters. No DOM.

export const KEPT = 100_000; // newest lines that the page holds

const ESCAPES = /\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])/g;
const CONTROLS = /[\x00-\x08\x0b-\x1f\x7f]/g;
const ERROR = /\b(?:ERROR|CRITICAL|FATAL)\b|Traceback \(most recent call last\)|^\s*(?:\w+\.)*\w*(?:Error|Exception)(?::|$)/;
const WARNING = /\bWARN(?:ING)?\b|\w*Warning:/;

/** A line without colour codes; other control characters are shown as pictures of them. */
export const plain = (text) => text.replace(ESCAPES, "").replace(CONTROLS, (c) => (c === "\x7f" ? "␡" : String.fromCharCode(0x2400 + c.charCodeAt(0))));

const levelOf = (text) => (ERROR.test(text) ? "error" : WARNING.test(text) ? "warning" : "");

/** A row: {t, stage, attempt, no, text, level, source: "line" | "event" | "gap"}. */
export const fromLine = (x) => {
  const text = plain(x.line);
  return { t: x.t, stage: x.stage, attempt: x.attempt, no: x.no, text, level: levelOf(text), source: "line" };
};
export const fromEvent = (e, told) => ({
  t: e.t, stage: e.stage, attempt: e.attempt, no: null, text: plain([told.what, told.details].filter(Boolean).join(" – ").replaceAll("\n", " ")),
  level: { error: "error", warning: "warning" }[e.kind] ?? (told.tone === "bad" ? "error" : ""), source: "event",
});

export class Lines {
  rows = []; // by time
  dropped = 0; // rows that the page no longer holds
  #gaps = new Map();

  /** Add rows. Returns the new rows if all belong at the end, null if the order or the beginning has changed. */
  add(rows) {
    const last = this.rows.at(-1)?.t ?? -Infinity;
    const inOrder = rows.every((row, i) => row.t >= (i ? rows[i - 1].t : last));
    for (const row of rows) this.rows.push(row);
    if (!inOrder) this.rows.sort((a, b) => a.t - b.t);
    const over = this.rows.length - KEPT;
    if (over > 0) this.dropped += this.rows.splice(0, over).length;
    return inOrder && over <= 0 ? rows : null;
  }

  /** Lines of an attempt that the platform no longer keeps. */
  gap({ stage, attempt, lines }) {
    this.#gaps.set(`${stage} ${attempt}`, { t: 0, stage, attempt, no: null, text: `${lines.toLocaleString("en")} earlier lines are no longer kept here; the attempt's stdout.log on its worker has them`, level: "", source: "gap" });
  }

  /** What a filter shows. Each gap stands before the first line of its attempt. */
  shown(filter) {
    const found = [];
    const gaps = new Map(this.#gaps);
    if (this.dropped) found.push({ t: this.rows[0].t, stage: null, attempt: null, no: null, text: `${this.dropped.toLocaleString("en")} earlier lines are not shown, to keep this page fast`, level: "", source: "gap" });
    for (const row of this.rows) {
      const key = `${row.stage} ${row.attempt}`;
      if (row.source === "line" && gaps.has(key)) {
        const gap = { ...gaps.get(key), t: row.t };
        gaps.delete(key);
        if (!filter.words && fits(gap, { ...filter, level: "" })) found.push(gap);
      }
      if (fits(row, filter)) found.push(row);
    }
    return found;
  }

  /** "stage attempt" of all rows that have one, in order. */
  attempts() {
    return [...new Set(this.rows.filter((row) => row.stage && row.attempt).map((row) => `${row.stage} ${row.attempt}`))];
  }
}

/** @param {{words: string, level: "" | "warning" | "error", attempt: string, events: boolean}} filter `words` in lower case */
export function fits(row, { words, level, attempt, events }) {
  if (row.source === "event" && !events) return false;
  if (attempt && attempt !== row.stage && attempt !== `${row.stage} ${row.attempt}`) return false;
  if (level === "error" && row.level !== "error") return false;
  if (level === "warning" && !row.level) return false;
  return !words || row.text.toLowerCase().includes(words);
}

export const asText = (rows) =>
  rows.map((r) => `${new Date(1000 * r.t).toISOString()} ${r.stage ?? "run"}${r.attempt ? `#${r.attempt}` : ""}${r.no === null ? "" : `:${r.no}`} ${r.source === "line" ? "" : `[${r.source}] `}${r.text}\n`).join("");
