// The part of the x axis that all charts of a page show.

const SMALLEST = 1e-6; // of the whole: one cannot zoom in further
const STILL_MS = 200; // without a change, until the range has come to rest
let made = 0;

/** Events: `change` after each frame in which it changed, `rest` once it has been still and nobody holds it. */
export class Range extends EventTarget {
  charts = new Set();
  log = false;
  key = `range-${made++}`; // charts of one range share their cursor
  #chosen = null; // [first, last], or null for all
  #asked = 0;
  #holders = 0;
  #still = 0;

  get isZoomed() {
    return this.#chosen !== null;
  }

  /** Is a pointer on it? It rests again after the release. */
  get isHeld() {
    return this.#holders > 0;
  }

  /** First and last x of all charts, or null while there are none. */
  get whole() {
    let [first, last] = [Infinity, -Infinity];
    for (const { extent } of this.charts) {
      if (!extent) continue;
      first = Math.min(first, extent[0]);
      last = Math.max(last, extent[1]);
    }
    if (first > last) return null;
    return first < last ? [first, last] : [first - (Math.abs(first) || 1) / 2, last + (Math.abs(last) || 1) / 2];
  }

  get now() {
    return this.#chosen ?? this.whole;
  }

  set(first, last) {
    const whole = this.whole;
    if (!whole || !(first < last)) return;
    const [a, b] = [this.#to(whole[0]), this.#to(whole[1])];
    const size = Math.min(b - a, Math.max((b - a) * SMALLEST, this.#to(last) - this.#to(first)));
    if (size >= (b - a) * 0.999) return this.reset();
    const from = Math.min(Math.max(this.#to(first), a), b - size);
    this.#chosen = [this.#from(from), this.#from(from + size)];
    this.#changed();
  }

  reset() {
    this.#chosen = null;
    this.#changed();
  }

  /** Show `factor` times as much, around the share `at` of what is seen. */
  zoom(factor, at = 0.5) {
    if (!this.now) return;
    const [a, b] = this.now.map((x) => this.#to(x));
    const middle = a + (b - a) * at;
    this.set(this.#from(middle - (middle - a) * factor), this.#from(middle + (b - middle) * factor));
  }

  /** Move by a share of what is seen. */
  move(share) {
    if (!this.#chosen) return;
    const [a, b] = this.#chosen.map((x) => this.#to(x));
    const by = (b - a) * share;
    this.set(this.#from(a + by), this.#from(b + by));
  }

  /** Data have come: all is still all, and what was chosen stays. */
  grown() {
    if (!this.#chosen) this.#changed();
  }

  /** A pointer is on it: until it is released it does not come to rest. */
  hold() {
    this.#holders++;
    clearTimeout(this.#still);
  }

  release() {
    this.#holders--;
    this.settle();
  }

  /** Say `rest` after a while, because it changed or because what is drawn did. */
  settle() {
    clearTimeout(this.#still);
    if (!this.#holders) this.#still = setTimeout(() => this.dispatchEvent(new Event("rest")), STILL_MS);
  }

  // All changes of a frame are drawn once.
  #changed() {
    this.#asked ||= requestAnimationFrame(() => {
      this.#asked = 0;
      for (const chart of this.charts) chart.show();
      this.dispatchEvent(new Event("change"));
      this.settle();
    });
  }

  #to(x) {
    return this.log ? Math.log10(x) : x;
  }

  #from(x) {
    return this.log ? 10 ** x : x;
  }
}
