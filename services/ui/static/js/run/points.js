// The points of a run's metrics: read once in buckets, then grown by the events of the stream, and finer where the curve is zoomed.
import { Problem, get, path } from "../api.js";

const AGAIN_MS = 3000; // after a failure

export class Points {
  series = []; // as of GET /v1/runs/{id}/metrics
  loaded = false;
  wrong = ""; // why the points could not be read, in words
  #loading = null;
  #late = []; // events that came while the points were read
  #fine = new Map(); // series by stage and key → {from, to, points, bucketed, stale, attempt}: its steps of a range in finer buckets

  /** @param {string[]} keys of the metrics; `buckets` of a series at most */
  constructor(run, keys, buckets) {
    Object.assign(this, { run, keys, buckets });
  }

  /** Read all anew. Two calls at the same time are one. */
  load() {
    this.#loading ??= this.#read().finally(() => (this.#loading = null));
    return this.#loading;
  }

  async #read() {
    do {
      this.#late = [];
      const { series } = await get(path`/runs/${this.run}/metrics`, { keys: this.keys, max_points: this.buckets });
      Object.assign(this, { series, loaded: true, wrong: "" });
      for (const [name, fine] of this.#fine) {
        const whole = series.find((s) => nameOf(s) === name);
        if (!whole || attemptOf(whole) !== fine.attempt) this.#fine.delete(name); // some of its points may be superseded
        else fine.stale = true;
      }
    } while (this.#late.some((event) => this.#take(event) === "reload"));
  }

  /**
   * Read all, again and again until it succeeds, and take what the stream of the run brings. `draw` is called after each try, then `loaded`
   * if it succeeded, and `soon` for new points. Returns what stops it.
   */
  follow(live, draw, soon, loaded) {
    let again = 0;
    let over = false;
    const read = async () => {
      clearTimeout(again);
      try {
        await this.load();
      } catch (err) {
        if (!(err instanceof Problem)) throw err;
        this.wrong = err.lines.join("\n");
        if (!over && (err.status === 0 || err.status === 429 || err.status >= 500)) again = setTimeout(read, AGAIN_MS);
      }
      if (over) return;
      draw();
      if (!this.wrong) loaded();
    };
    const stops = [
      live.onReset(read),
      live.onEvent((event) => {
        const answer = this.#add(event);
        if (answer === "reload") read();
        else if (answer === "added") soon();
      }),
    ];
    read();
    return () => {
      over = true;
      clearTimeout(again);
      for (const stop of stops) stop();
    };
  }

  of(stage, key) {
    return this.series.find((s) => s.stage === stage && s.key === key);
  }

  /** The points to draw of a series: the finer ones where there are any, and the buckets of the whole series before and after them. */
  drawn(series) {
    const fine = this.fine(series);
    if (!fine) return series.points;
    const { from, to, points } = fine;
    return [...series.points.filter((p) => p.step < from), ...points, ...series.points.filter((p) => p.step > to)];
  }

  /** What was read last for a part of the series. */
  fine(series) {
    return this.#fine.get(nameOf(series));
  }

  /** Read a part of a stage's series in finer buckets, which replace those of an earlier part. */
  async refine({ stage, keys, from, to }, signal) {
    const asked = { stage, keys, from_step: from, to_step: to, max_points: this.buckets };
    const before = this.series;
    const { series } = await get(path`/runs/${this.run}/metrics`, asked, { signal });
    if (this.series !== before) return; // all was read anew meanwhile: an attempt may have resumed
    for (const { key, points, bucketed } of series) {
      const whole = this.of(stage, key);
      if (!whole) continue;
      const share = spacing(points) / spacing(whole.points);
      this.#fine.set(nameOf(whole), { from, to, bucketed, stale: false, attempt: attemptOf(whole), points: points.map((p) => ({ ...p, share })) });
    }
  }

  /** Forget all finer points. Returns whether there were any. */
  coarsen() {
    const had = this.#fine.size > 0;
    this.#fine.clear();
    return had;
  }

  #add(event) {
    if (event.kind !== "metric" || !event.data?.values) return "known";
    if (!this.#loading) return this.#take(event);
    this.#late.push(event);
    return "known";
  }

  /** Take a metric event. Returns "added", "known", or "reload" if only the server can say what counts now. */
  #take(event) {
    const { step, values } = event.data;
    let answer = "known";
    for (const [key, value] of Object.entries(values)) {
      if (value === null || !this.keys.includes(key)) continue;
      const series = this.of(event.stage, key);
      if (!series) return "reload"; // its first point: the server also knows the tokens and FLOPs of its steps
      // What was read is told by attempt and step, never by the time: the clocks of machines differ and are set back.
      const read = attemptOf(series);
      if (event.attempt > read) return "reload"; // an attempt resumed: what lies beyond no longer counts
      if (event.attempt < read || step <= series.points.at(-1).step) continue; // the stream repeats what was read
      const finite = typeof value === "number" && Number.isFinite(value) ? value : null;
      series.points.push({ step, t: event.t, min: finite, max: finite, last: finite, nonfinite: finite === null ? 1 : 0 });
      if (series.points.length > 2 * this.buckets) return "reload";
      answer = "added";
    }
    return answer;
  }
}

const nameOf = ({ stage, key }) => `${stage} ${key}`;

/** The newest attempt that had started when the series was read. */
const attemptOf = ({ gaps }) => Math.max(1, ...gaps.map((gap) => gap.attempt));

/** Steps from one point to the next, on average. */
const spacing = (points) => (points.length > 1 ? (points.at(-1).step - points[0].step) / (points.length - 1) : 1);

/**
 * Exponential moving average without the bias towards its start (as Adam corrects it, Kingma and Ba 2014).
 * Null stays null and does not count. `weight` is that of the past, 0 to less than 1. A value of a finer bucket counts by its `share` of a
 * coarse one, so that a zoomed curve is as smooth per step as the whole.
 */
export function smoothed(values, weight, shares) {
  let [average, power] = [0, 1];
  return values.map((value, i) => {
    if (value === null) return null;
    const past = weight ** shares[i];
    average = past * average + (1 - past) * value;
    power *= past;
    return average / (1 - power);
  });
}
