// The control API, through the UI service. Every failure is a Problem with a text for people.
import { connection } from "./connection.js";

export class Problem extends Error {
  /** @param {number} status 0 if there was no answer */
  constructor(status, message, errors = []) {
    super(message);
    this.status = status;
    this.errors = errors; // [{field, message}]
  }
  /** The texts of the fields, or the message if no field is named. */
  get lines() {
    return this.errors.length ? this.errors.map((e) => `${e.field}: ${e.message}`) : [this.message];
  }
  /** Whether nothing has the name or id in the address that was asked for. */
  get missing() {
    return this.status === 404 || this.errors.some((e) => e.field.startsWith("path "));
  }
}

const TIMEOUT_MS = 20_000;

async function request(method, path, { params, body, headers, signal, raw } = {}) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(params ?? {})) {
    for (const one of [value].flat()) if (one !== null && one !== undefined && one !== "") query.append(name, one);
  }
  const address = `${path}${query.size ? `?${query}` : ""}`;
  const limit = AbortSignal.timeout(TIMEOUT_MS);
  let answer;
  try {
    answer = await fetch(address, {
      method,
      headers: { Accept: "application/json", ...(body === undefined ? {} : { "Content-Type": "application/json" }), ...headers },
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: signal ? AbortSignal.any([signal, limit]) : limit,
    });
  } catch (err) {
    if (signal?.aborted) throw err;
    connection.lost("The dashboard's server does not answer.");
    throw new Problem(0, "The dashboard's server does not answer.");
  }
  await check(answer);
  if (raw) return answer;
  if (answer.status === 204) return null;
  return answer.json().catch((err) => {
    if (signal?.aborted) throw err;
    throw new Problem(0, "The answer came to an end before it was complete.");
  });
}

/** Raises the Problem that the answer is, and tells the connection whether the API is up. */
export async function check(answer) {
  if (answer.status === 401) {
    connection.dispatchEvent(new Event("ended"));
    location.assign(`/signin?ended=1&next=${encodeURIComponent(location.pathname + location.search)}`);
    return new Promise(() => {}); // the page is about to go
  }
  const told = answer.ok ? null : await answer.json().catch(() => null);
  if (answer.status >= 502 && answer.status <= 504) connection.lost(told?.detail ?? told?.title ?? "The control API does not answer.");
  else connection.found();
  if (!answer.ok) throw new Problem(answer.status, told?.detail || told?.error?.message || told?.title || `The answer was ${answer.status}.`, told?.errors ?? []);
}

export const get = (path, params, options) => request("GET", `/api/v1${path}`, { params, ...options });
export const post = (path, body = undefined, options) => request("POST", `/api/v1${path}`, { body, ...options });
export const patch = (path, body) => request("PATCH", `/api/v1${path}`, { body });
export const put = (path, body) => request("PUT", `/api/v1${path}`, { body });
export const del = (path) => request("DELETE", `/api/v1${path}`);

/** The inference service: `inference("POST", "/tokenize", {…})`. */
export const inference = (method, path, body, options) => request(method, `/inference${path}`, { body, ...options });

/** A path of the API with its parts escaped: path`/runs/${id}/events`. */
export const path = (texts, ...values) => String.raw({ raw: texts }, ...values.map((v) => encodeURIComponent(v)));

/** May the visitor change things? Viewers only look. */
export const mayOperate = () => ["operator", "admin"].includes(document.documentElement.dataset.role);
export const isAdmin = () => document.documentElement.dataset.role === "admin";
