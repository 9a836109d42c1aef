// Figures as people read them, each with its unit. The same rules as libs/client/text.py.
import { h } from "./dom.js";

export const DASH = "–";
export const FINISHED = new Set(["SUCCEEDED", "FAILED", "CANCELLED"]);

const STATUS = {
  PENDING: ["○", "Pending", ""], QUEUED: ["◔", "Queued", ""], STARTING: ["◑", "Starting", "active"], RUNNING: ["●", "Running", "active"],
  STOPPING: ["◒", "Stopping", "warn"], BACKOFF: ["↻", "Waits to retry", "warn"], PAUSED: ["‖", "Paused", "warn"],
  SUCCEEDED: ["✓", "Succeeded", "good"], FAILED: ["✗", "Failed", "bad"], CANCELLED: ["⊘", "Cancelled", ""], SKIPPED: ["↷", "Skipped", ""],
};

/** A status as symbol, word and colour. */
export function chip(status) {
  const [symbol, word, tone] = STATUS[status] ?? ["?", status, ""];
  return h("span", { class: `chip ${tone}`, "data-symbol": symbol, "data-status": status }, word);
}
export const tone = (status) => STATUS[status]?.[2] ?? "";
export const statusWord = (status) => STATUS[status]?.[1] ?? status;

const known = (x) => typeof x === "number" && Number.isFinite(x);

/** 4 significant digits and a letter: 1234567 → "1.235M". Whole numbers below 10,000 stay whole; thousands have a comma. */
export function number(x, digits = 4) {
  if (!known(x)) return typeof x === "string" ? x : DASH;
  const size = Math.abs(x);
  if (size < 10_000) {
    const kept = Number.isInteger(x) ? x : Number(x.toPrecision(digits));
    return Math.abs(kept) < 1000 ? String(kept) : kept.toLocaleString("en");
  }
  for (const [limit, letter] of [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "k"]]) {
    if (size >= limit) return `${Number((x / limit).toPrecision(digits))}${letter}`;
  }
  return String(x);
}

/** Floating-point operations: 4.07e18 → "4.07 EFLOP". */
export function flops(x) {
  if (!known(x)) return DASH;
  for (const [limit, letter] of [[1e21, "Z"], [1e18, "E"], [1e15, "P"], [1e12, "T"], [1e9, "G"]]) {
    if (x >= limit) return `${Number((x / limit).toPrecision(3))} ${letter}FLOP`;
  }
  return `${number(x, 3)} FLOP`;
}

export function bytes(x) {
  if (!known(x)) return DASH;
  for (const [limit, unit] of [[2 ** 40, "TiB"], [2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"]]) {
    if (Math.abs(x) >= limit) return `${Number((x / limit).toPrecision(3))} ${unit}`;
  }
  return `${x} B`;
}

export function dollars(x) {
  if (!known(x)) return DASH;
  return x >= 1000 ? `$${Math.round(x).toLocaleString("en")}` : `$${x.toFixed(2)}`;
}

export const percent = (x, digits = 0) => (known(x) ? `${(100 * x).toFixed(digits)} %` : DASH);

/** Seconds as "2 d 3 h", "1 h 05 min", "4 min 09 s" or "12 s". */
export function seconds(s) {
  if (!known(s)) return DASH;
  const t = Math.max(0, Math.round(s));
  const [d, hours, m] = [Math.floor(t / 86_400), Math.floor(t / 3600) % 24, Math.floor(t / 60) % 60];
  const two = (x) => String(x).padStart(2, "0");
  if (d) return `${d} d ${hours} h`;
  if (hours) return `${hours} h ${two(m)} min`;
  if (m) return `${m} min ${two(t % 60)} s`;
  return `${t} s`;
}

/** Seconds between two times of the API; until now without the second. */
export const between = (from, to) => (from ? (date(to ?? Date.now()) - date(from)) / 1000 : NaN);

/** A time of the API (ISO text, or seconds since 1970) as Date. */
export const date = (t) => (typeof t === "number" && t < 1e11 ? new Date(t * 1000) : new Date(t));

const local = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });

/** A time in the visitor's zone, with UTC on hover. `form`: "date" (default), "clock" or "ago". */
export function time(t, form = "date") {
  if (t === null || t === undefined) return h("span", null, DASH);
  const when = date(t);
  const text = form === "ago" ? ago(when) : form === "clock" ? clock.format(when) : local.format(when);
  const utc = `${when.toISOString().slice(0, 19).replace("T", " ")} UTC`;
  return h("time", { datetime: when.toISOString(), title: form === "ago" ? `${local.format(when)} · ${utc}` : utc, ...(form === "ago" ? { "data-ago": "" } : {}) }, text);
}

export function ago(when) {
  const s = Math.max(0, (Date.now() - when) / 1000);
  if (s < 60) return "just now";
  if (s < 3600) return `${Math.floor(s / 60)} min ago`;
  if (s < 86_400) return `${Math.floor(s / 3600)} h ago`;
  return `${Math.floor(s / 86_400)} d ago`;
}

// Ages on the page grow by themselves.
setInterval(() => {
  for (const node of document.querySelectorAll("time[data-ago]")) {
    const text = ago(new Date(node.dateTime));
    if (node.textContent !== text) node.textContent = text;
  }
}, 20_000);
