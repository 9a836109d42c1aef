// Whether the services answer. While they do not, the page stays, is greyed, and says for how long.
import { fill, h } from "./dom.js";
import { seconds } from "./format.js";

const RETRY_MS = 2000;

class Connection extends EventTarget {
  #since = 0;
  #timer = 0;
  #line = null;

  get isLost() {
    return this.#since > 0;
  }

  lost(message) {
    if (this.#since) return;
    this.#since = Date.now();
    document.getElementById("main")?.classList.add("stale");
    this.#line = h("span", null, message);
    const age = h("span", { class: "dim" });
    fill(
      document.getElementById("banner"),
      h("div", { class: "notice bad" }, this.#line, age, h("button", { type: "button", onclick: () => this.retry() }, "Retry now")),
    );
    const tick = () => (age.textContent = `What you see is ${seconds((Date.now() - this.#since) / 1000)} old.`);
    tick();
    this.#timer = setInterval(() => {
      tick();
      this.retry();
    }, RETRY_MS);
  }

  async retry() {
    const answer = await fetch("/ready", { cache: "no-store" }).catch(() => null);
    const told = await answer?.json().catch(() => null);
    if (told?.api === "ok") this.found();
  }

  /** Something answered. Listeners of `found` ask again for what they show. */
  found() {
    if (!this.#since) return;
    this.#since = 0;
    clearInterval(this.#timer);
    fill(document.getElementById("banner"));
    document.getElementById("main")?.classList.remove("stale");
    this.dispatchEvent(new Event("found"));
  }
}

export const connection = new Connection();
