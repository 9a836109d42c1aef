// Where one writes. A message that is sent while an answer is being written waits in line; none is lost.
import { fill, h } from "../dom.js";
import { number } from "../format.js";

const FULL = 0.85; // share of the context from which the meter warns

export class Composer {
  /** @param {{send: (text: string) => void, stop: () => void, changed: () => void, release: (i: number) => void, discard: (i: number) => void, drop: () => void, begin: () => void}} acts */
  constructor(acts) {
    this.acts = acts;
    this.input = h("textarea", { id: "chat-input", rows: "1", "aria-label": "Message", "aria-describedby": "chat-wrong chat-meter", placeholder: "Write a message" });
    this.send = h("button", { type: "submit", class: "primary", id: "send" }, "Send");
    this.stop = h("button", { type: "button", id: "stop", class: "danger", hidden: true, onclick: () => acts.stop() }, "◼ Stop");
    this.wrong = h("p", { class: "wrong", id: "chat-wrong", role: "alert", hidden: true });
    this.meter = h("span", { id: "chat-meter" });
    this.bar = h("i");
    this.full = h("div", { class: "notice warn", id: "chat-full", role: "alert", hidden: true });
    this.waiting = h("ul", { class: "waiting", "aria-label": "Messages that wait" });
    const hint = h("span", { class: "hint" }, "Enter sends · Shift+Enter starts a new line");
    this.form = h(
      "form",
      { class: "composer" },
      this.waiting, this.full, this.wrong,
      h("div", { class: "write" }, this.input, this.send, this.stop),
      h("div", { class: "row small dim under" }, hint, h("span", { class: "push meter" }, h("span", { class: "bar", "aria-hidden": "true" }, this.bar), this.meter)),
    );
    this.node = this.form;
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    this.input.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.#submit();
    });
    this.input.addEventListener("input", () => {
      this.fit();
      this.tell("");
      acts.changed();
    });
  }

  get text() {
    return this.input.value;
  }

  write(text) {
    this.input.value = text;
    this.fit();
    this.acts.changed();
  }

  fit() {
    this.input.style.height = "auto";
    this.input.style.height = `${Math.min(this.input.scrollHeight + 2, 240)}px`;
  }

  /** What is wrong with the message; empty: nothing. */
  tell(text) {
    this.wrong.textContent = text;
    this.wrong.hidden = !text;
    this.input.setAttribute("aria-invalid", String(Boolean(text)));
  }

  /** @param {{busy: boolean, able: boolean, held: boolean, queue: string[], continues: boolean}} state */
  show({ busy, able, held, queue, continues }) {
    this.stop.hidden = !busy;
    this.send.textContent = busy ? "Queue" : "Send";
    this.send.disabled = !able;
    this.input.placeholder = continues ? "Write the beginning of a text" : "Write a message";
    fill(
      this.waiting,
      queue.map((text, i) =>
        h("li", null, h("span", { class: "break" }, text), h("span", { class: "row" }, h("span", { class: "small dim" }, held ? "not sent yet" : "waits for the answer"),
          held && i === 0 && h("button", { type: "button", onclick: () => this.acts.release() }, "Send now"),
          h("button", { type: "button", class: "plain", "aria-label": `Do not send: ${text.slice(0, 40)}`, onclick: () => this.acts.discard(i) }, "Remove"))),
      ),
    );
    this.waiting.hidden = !queue.length;
  }

  /** @param {{tokens?: number, context?: number, drop?: number | null, refused?: string, problem?: string}} length */
  measured({ tokens, context, drop, refused, problem }) {
    const known = tokens !== undefined;
    this.meter.textContent = known ? `${number(tokens)} of ${number(context)} tokens` : refused ? "too long" : problem ? "length unknown" : "";
    this.meter.title = problem ?? "";
    this.bar.parentNode.hidden = !known;
    const share = known ? tokens / context : 0;
    this.bar.style.width = `${Math.min(100, 100 * share)}%`;
    this.bar.parentNode.className = `bar ${share >= 1 ? "bad" : share > FULL ? "warn" : ""}`;
    this.full.hidden = drop === undefined && !refused;
    if (this.full.hidden) return;
    if (refused) return fill(this.full, `This cannot be sent: ${refused}`);
    const more = `The conversation has ${number(tokens)} tokens and the model reads at most ${number(context)}, so there is no room for an answer. `;
    const alone = `This message alone is too long: ${number(tokens)} tokens with it, and the model reads at most ${number(context)}. Shorten it. `;
    fill(
      this.full,
      drop === null ? alone : more,
      h("span", { class: "row" },
        drop > 0 && h("button", { type: "button", id: "drop-oldest", onclick: () => this.acts.drop(drop) }, "Drop oldest"),
        drop !== 0 && h("button", { type: "button", id: "begin-anew", onclick: () => this.acts.begin() }, "New chat")),
    );
  }

  #submit() {
    const text = this.input.value.trim();
    if (!text || this.send.disabled) return;
    this.input.value = "";
    this.fit();
    this.tell("");
    this.acts.send(text);
  }
}
