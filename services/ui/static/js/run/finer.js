// Finer buckets for the part of the x axis that is shown, read once a zoom or a pan has come to rest.
import { Problem } from "../api.js";

const MARGIN = 0.25; // of what is shown, read on either side as well: a short pan then needs no request
const ENOUGH = 1 / 3; // of the buckets that one may ask for, within what is shown
const ROUNDS = 3; // when buckets are wider than what is shown, the first answer only tells where to look

export class Finer {
  #asking = new AbortController();
  #stopped = new AbortController();

  /**
   * @param {() => {points: Points, place: any, pick: (stage: string) => any[]}[]} drawn what the lines are made of: `place` as of `placed`
   * @param {() => void} draw called when points have come or gone
   */
  constructor(range, drawn, draw) {
    Object.assign(this, { range, drawn, draw });
    const { signal } = this.#stopped;
    range.addEventListener("change", () => this.#moved(), { signal });
    range.addEventListener("rest", () => this.#rested(), { signal });
  }

  stop() {
    this.#stopped.abort();
    this.#asking.abort();
  }

  #moved() {
    this.#asking.abort();
    if (!this.range.isZoomed) this.#coarsen();
  }

  async #rested() {
    this.#asking.abort();
    if (!this.range.isZoomed) return;
    const { signal } = (this.#asking = new AbortController());
    try {
      for (let round = 0; round < ROUNDS; round++) {
        const parts = missing(this.drawn(), this.range.now);
        if (!parts.length || this.range.isHeld) return;
        await Promise.all(parts.map(({ points, ...part }) => points.refine(part, signal)));
        this.draw();
      }
    } catch (err) {
      if (signal.aborted) return;
      if (!(err instanceof Problem)) throw err;
      this.#asking.abort(); // one failure is enough: the next zoom or pan asks again
      this.#coarsen();
    }
  }

  #coarsen() {
    const runs = new Set(this.drawn().map(({ points }) => points));
    if ([...runs].filter((points) => points.coarsen()).length) this.draw();
  }
}

/** What to read: a part of a stage for all its metrics together, as `Points.refine` takes it. */
function missing(drawn, [first, last]) {
  const margin = (last - first) * MARGIN;
  const parts = new Map();
  for (const { points, place, pick } of drawn) {
    for (const stage of place.starts.keys()) {
      if (place.unknown.includes(stage)) continue;
      for (const { key } of pick(stage)) {
        const series = points.of(stage, key);
        if (!series.bucketed) continue;
        const all = points.drawn(series);
        const at = (p) => place.at(stage, p.step, p.t);
        if (isFine(points.fine(series), all, steps(all, at, first, last), points.buckets)) continue;
        const wanted = steps(all, at, first - margin, last + margin);
        if (!wanted || isSame(points.fine(series), wanted)) continue;
        const name = `${points.run} ${stage}`;
        const part = parts.get(name) ?? { points, stage, keys: new Set(), ...wanted };
        parts.set(name, { ...part, keys: part.keys.add(key), from: Math.min(part.from, wanted.from), to: Math.max(part.to, wanted.to) });
      }
    }
  }
  return [...parts.values()].map((part) => ({ ...part, keys: [...part.keys] }));
}

/** The steps of the points from one x to another, widened to the nearest point on either side; null if the stage lies elsewhere. */
function steps(points, at, first, last) {
  if (at(points[0]) > last) return null;
  const begin = points.findLast((p) => at(p) < first);
  const end = points.find((p) => at(p) > last) ?? points.at(-1);
  const from = begin ? begin.step + 1 : 0;
  return from <= end.step ? { from, to: end.step } : null;
}

/** Would a request show nothing more of these steps? */
function isFine(fine, points, wanted, buckets) {
  if (!wanted) return true;
  if (!fine || fine.stale || wanted.from < fine.from || wanted.to > fine.to) return false;
  return !fine.bucketed || points.filter((p) => p.step >= wanted.from && p.step <= wanted.to).length >= buckets * ENOUGH;
}

const isSame = (fine, { from, to }) => Boolean(fine) && !fine.stale && fine.from === from && fine.to === to;
