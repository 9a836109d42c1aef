// The conversation: what was asked and answered, and the place where the model begins to read.
import { fill, h, keyed } from "../dom.js";
import { AnswerView } from "./answer.js";
import { failed } from "./store.js";

const AT_END_PX = 80;

export class Log {
  #views = new WeakMap();
  #editing = -1;

  /** @param {{retry: () => void, edit: (turn: number, text: string) => void, undo: () => void, pick: (text: string) => void}} acts */
  constructor(acts) {
    this.acts = acts;
    this.start = h("div", { class: "start" });
    this.turns = h("div", { class: "turns" });
    this.node = h("div", { class: "log", role: "log", tabindex: "0", "aria-label": "Conversation", "aria-live": "off" }, this.start, this.turns);
  }

  show(conversation, offer, busy) {
    const atEnd = this.node.scrollHeight - this.node.scrollTop - this.node.clientHeight < AT_END_PX;
    this.start.hidden = conversation.turns.length > 0;
    if (!this.start.hidden) this.#showStart(offer);
    const items = conversation.turns.map((turn, i) => ({ turn, i, last: i === conversation.turns.length - 1, id: `${conversation.id}-${i}` }));
    keyed(this.turns, items, (one) => one.id, (one) => this.#make(one.i), (node, one) => this.#update(node, one, conversation, busy));
    if (atEnd) this.toEnd();
  }

  toEnd() {
    this.node.scrollTop = this.node.scrollHeight;
  }

  #showStart(offer) {
    const key = JSON.stringify([offer?.label, offer?.examples]);
    if (this.start.dataset.key === key) return;
    this.start.dataset.key = key;
    if (!offer?.label) return fill(this.start);
    const picks = offer.examples.map((text) => h("button", { type: "button", class: "example", onclick: () => this.acts.pick(text) }, text));
    fill(
      this.start,
      h("h1", null, offer.continues ? "Let the model go on with a text" : "Talk to the model you trained"),
      h("p", { class: "dim" }, offer.label, offer.continues && ". A base model answers nothing: it continues what you write."),
      h("div", { class: "examples" }, picks),
    );
  }

  #make(i) {
    const text = h("div", { class: "asked-text" });
    const edit = h("button", { type: "button", class: "plain", onclick: () => this.#edit(i) }, "Edit");
    const undo = h("button", { type: "button", class: "plain", onclick: () => this.acts.undo() }, "Undo");
    const note = h("p", { class: "note small" });
    const answers = h("div", { class: "answers" });
    const node = h("section", { class: "turn" }, h("article", { class: "asked", "aria-label": "Your message" }, text, h("div", { class: "row tools" }, edit, undo)), note, answers);
    this.#views.set(node, { text, edit, undo, note, answers, views: [] });
    return node;
  }

  #update(node, { turn, i, last }, conversation, busy) {
    const parts = this.#views.get(node);
    if (this.#editing !== i && parts.text.textContent !== turn.asked) fill(parts.text, turn.asked);
    parts.edit.hidden = busy || this.#editing === i;
    parts.undo.hidden = busy || !last;
    node.classList.toggle("dropped", Boolean(turn.dropped));
    parts.note.textContent = noteOf(turn, conversation.turns[i + 1]);
    parts.note.hidden = !parts.note.textContent;
    while (parts.views.length > turn.answers.length) parts.views.pop().node.remove();
    turn.answers.forEach((answer, side) => {
      if (!parts.views[side]) {
        parts.views[side] = new AnswerView({ retry: () => this.acts.retry() });
        parts.answers.append(parts.views[side].node);
      }
      parts.views[side].show(answer, { last, busy });
    });
    parts.answers.classList.toggle("two", turn.answers.length > 1);
  }

  #edit(i) {
    const node = this.turns.children[i];
    const { text } = this.#views.get(node);
    const before = text.textContent;
    const end = (save) => {
      this.#editing = -1;
      fill(text, before);
      if (save && input.value.trim()) this.acts.edit(i, input.value.trim());
      else this.#views.get(node).edit.hidden = false;
    };
    const input = h("textarea", { "aria-label": "Change your message", rows: Math.min(10, before.split("\n").length + 1), value: before });
    input.addEventListener("keydown", (event) => {
      if (event.key === "Escape") end(false);
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) event.preventDefault(), end(true);
    });
    this.#editing = i;
    this.#views.get(node).edit.hidden = true;
    fill(text, input, h("div", { class: "row" }, h("button", { type: "button", class: "primary", onclick: () => end(true) }, "Save and ask again"), h("button", { type: "button", onclick: () => end(false) }, "Back")));
    input.focus();
  }
}

function noteOf(turn, next) {
  if (turn.dropped) return next?.dropped ? "" : "The model reads from here on; what stands above is left out.";
  return turn.answers.length && failed(turn) ? "This message was not answered. The model does not see it in later turns; Retry sends it again." : "";
}
