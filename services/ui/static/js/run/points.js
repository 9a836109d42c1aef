// The points of a run's metrics: read once in buckets, then grown by the events of the stream.
import { Problem, get, path } from "../api.js";

const AGAIN_MS = 3000; // after a failure

export class Points {
  series = []; // {stage, key, points: [{step, t, min, max, last, nonfinite}], gaps: [{step, attempt, t}]}
  loaded = false;
  wrong = ""; // why the points could not be read, in words
  #loading = null;

  /** @param {string[]} keys of the metrics; `buckets` of a series at most */
  constructor(run, keys, buckets) {
    Object.assign(this, { run, keys, buckets });
  }

  /** Read all anew. Two calls at the same time are one. */
  load() {
    this.#loading ??= get(path`/runs/${this.run}/metrics`, { keys: this.keys, max_points: this.buckets })
      .then(({ series }) => Object.assign(this, { series, loaded: true, wrong: "" }))
      .finally(() => (this.#loading = null));
    return this.#loading;
  }

  /** Read all anew, again and again until it succeeds, and draw what came of each try. Nobody waits for it. */
  async read(draw) {
    try {
      await this.load();
    } catch (err) {
      const late = err.name === "TimeoutError"; // the answer began and did not end in time
      if (!late && !(err instanceof Problem)) throw err;
      this.wrong = late ? "the server takes too long" : err.lines.join("\n");
      if (late || err.status === 0 || err.status === 429 || err.status >= 500) setTimeout(() => this.read(draw), AGAIN_MS);
    }
    draw();
  }

  of(stage, key) {
    return this.series.find((s) => s.stage === stage && s.key === key);
  }

  /** Take an event of the stream. Returns "added", "known", or "reload" if only the server can say what counts now. */
  add(event) {
    if (event.kind !== "metric" || !event.data?.values) return "known";
    const { step, values } = event.data;
    let answer = "known";
    for (const [key, value] of Object.entries(values)) {
      if (!this.keys.includes(key)) continue;
      const series = this.of(event.stage, key) ?? this.#begin(event.stage, key);
      const last = series.points.at(-1);
      if (last && event.t <= last.t) continue; // the stream repeats what was read
      if (last && step <= last.step) return "reload"; // an attempt resumed: what lies beyond no longer counts
      const finite = typeof value === "number" && Number.isFinite(value) ? value : null;
      series.points.push({ step, t: event.t, min: finite, max: finite, last: finite, nonfinite: finite === null ? 1 : 0 });
      if (series.points.length > 2 * this.buckets) return "reload";
      answer = "added";
    }
    return answer;
  }

  #begin(stage, key) {
    const made = { stage, key, points: [], gaps: [] };
    this.series.push(made);
    return made;
  }
}

/**
 * Exponential moving average without the bias towards its start (as Adam corrects it, Kingma and Ba 2014).
 * Null stays null and does not count. `weight` is that of the past, 0 to less than 1.
 */
export function smoothed(values, weight) {
  let [average, power] = [0, 1];
  return values.map((value) => {
    if (value === null) return null;
    average = weight * average + (1 - weight) * value;
    power *= weight;
    return average / (1 - power);
  });
}
