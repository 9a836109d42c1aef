// The chat: conversations kept in the browser, answers that Gradio streams from the inference service.
import "../account.js";
import { copyButton } from "../clipboard.js";
import { fill, h } from "../dom.js";
import { setParam } from "../address.js";
import { Composer } from "./composer.js";
import { listen } from "./bus.js";
import { Log } from "./log.js";
import { Sidebar } from "./sidebar.js";
import { asked, fresh, nameOf, Store, talk, unanswered } from "./store.js";

const SILENCE_MS = 10_000; // the server sends something every second while an answer is being made
const MEASURE_MS = 350;
const SAVE_MS = 1_000;
const PROBE_MS = 5_000;
const DRAFT = "nanochat.chat.draft"; // what is written but not sent survives a reload, such as Gradio's own when its server was restarted

class Chat {
  conversation = fresh();
  offer = null;
  running = null; // {number, turn, heard, saved}
  queue = []; // messages that wait
  lost = false; // whether the dashboard's server does not answer
  held = false; // whether they wait for the visitor, because the answer before them was stopped or failed
  #known = ""; // what was asked in the conversation when this tab last kept or opened it
  #number = Date.now();
  #timer = 0;
  #measuring = 0;

  constructor(element, gradio) {
    this.gradio = gradio;
    this.notice = h("div", { id: "chat-notice", role: "status" });
    this.title = h("h2", { class: "title break" });
    this.log = new Log({ retry: () => this.retry(), edit: (i, text) => this.edit(i, text), undo: () => this.undo(), pick: (text) => this.send(text) });
    this.composer = new Composer({
      send: (text) => this.send(text), stop: () => this.stop(), changed: () => this.#measureSoon(), release: () => this.#next(true),
      discard: (i) => (this.queue.splice(i, 1), this.show()), drop: (n) => this.drop(n), begin: () => this.begin(),
    });
    this.element = element;
    listen("answer", (value) => this.#hear(value));
    listen("length", (value) => value.number === this.#measuring && this.composer.measured(value));
    listen("offer", (value) => this.#offered(value));
    setInterval(() => this.#watch(), 1_000);
    setInterval(() => this.#probe(), PROBE_MS);
  }

  #start(owner) {
    this.store = new Store(owner);
    this.sidebar = new Sidebar(this.store, {
      open: (id) => this.open(id), begin: () => this.begin(),
      renamed: (id, name) => (id === this.conversation.id && (this.conversation.name = name), this.show()),
      removed: (id) => (id === this.conversation.id ? this.begin() : this.show()),
    });
    const bar = h("div", { class: "row chat-bar" },
      h("button", { type: "button", class: "only-narrow", onclick: () => this.element.classList.toggle("with-list") }, "☰ Chats"),
      this.title,
      copyButton(() => this.#link(), "Copy link", { class: "plain push", id: "copy-link" }),
      h("button", { type: "button", class: "only-narrow", onclick: () => document.getElementById("chat").classList.toggle("with-settings") }, "Settings"));
    this.element.dataset.owner = owner;
    fill(this.element, this.sidebar.node, h("div", { class: "talk" }, bar, this.notice, this.log.node, this.composer.node));
    window.addEventListener("storage", ({ key }) => this.#changedElsewhere(key));
    const link = new URL(location.href).searchParams;
    if (link.get("model") || link.get("run")) this.gradio.trigger("choose", { model: link.get("model") ?? "", run: link.get("run") ?? "" });
    this.composer.write(link.get("prompt") ?? sessionStorage.getItem(DRAFT) ?? "");
    const kept = this.store.load(link.get("chat") ?? "");
    if (kept) this.#show(kept);
    this.composer.input.focus({ preventScroll: true });
  }

  #offered(offer) {
    const chosen = this.offer?.chosen;
    this.offer = offer;
    if (!this.sidebar) this.#start(offer.owner);
    else if (chosen && chosen !== offer.chosen) setParam("run", null), setParam("model", offer.chosen);
    this.show();
    if (chosen !== offer.chosen) this.#measureSoon();
  }

  get able() {
    return Boolean(this.offer?.chosen) && !this.problem;
  }

  get problem() {
    return this.lost ? "The dashboard's server does not answer. The page tries again every few seconds." : this.offer.problem;
  }

  show() {
    const { offer, conversation } = this;
    this.title.textContent = conversation.name || "New chat";
    const key = JSON.stringify([this.problem, offer.notice, offer.switch_to]);
    if (this.notice.dataset.key !== key) {
      this.notice.dataset.key = key;
      const text = this.problem || offer.notice;
      const change = offer.switch_to && h("button", { type: "button", onclick: () => this.gradio.trigger("choose", { model: offer.switch_to, run: "" }) }, "Talk to the newest");
      fill(this.notice, text && h("div", { class: `notice row ${this.problem ? "bad" : "warn"}` }, h("span", null, text), !this.problem && change));
    }
    this.log.show(conversation, offer, Boolean(this.running));
    this.composer.show({ busy: Boolean(this.running), able: this.able, held: this.held, queue: this.queue, continues: offer.continues });
    this.sidebar.show(conversation.id);
  }

  /** Ask now, or after the answer that is being written and the messages that wait already. */
  send(text) {
    if (this.running || this.queue.length) this.queue.push(text);
    else this.#ask(text);
    setParam("prompt", null);
    this.show();
  }

  retry() {
    const turn = this.conversation.turns.pop();
    if (turn && !this.running) this.#ask(turn.asked);
  }

  edit(i, text) {
    if (this.running) return;
    this.conversation.turns.length = i;
    this.#ask(text);
  }

  undo() {
    const turn = this.conversation.turns.pop();
    this.#save();
    this.composer.write(turn.asked);
    this.composer.input.focus();
    this.show();
  }

  stop() {
    this.gradio.trigger("stop");
    this.#cut({ finish: "stopped" });
  }

  open(id) {
    if (this.running) this.stop();
    this.#show(this.store.load(id) ?? fresh());
  }

  begin() {
    if (this.running) this.stop();
    this.#show(fresh());
    this.composer.input.focus();
  }

  drop(n) {
    for (const turn of this.conversation.turns.filter((one) => !one.dropped).slice(0, n)) turn.dropped = true;
    this.#save();
    this.show();
    this.#measureSoon();
  }

  #show(conversation) {
    this.conversation = conversation;
    this.#known = asked(conversation);
    setParam("chat", conversation.turns.length ? conversation.id : null);
    this.queue = [];
    this.held = false;
    this.element.classList.remove("with-list");
    this.composer.tell("");
    this.show();
    this.log.toEnd();
    this.#measureSoon();
    if (conversation.turns.length) this.#render(conversation);
  }

  #ask(text) {
    const turn = { asked: text, answers: [] };
    this.conversation.turns.push(turn);
    this.conversation.name ||= nameOf(text);
    this.running = { number: ++this.#number, turn, conversation: this.conversation, heard: Date.now(), saved: 0 };
    this.held = false;
    this.composer.tell("");
    setParam("chat", this.conversation.id);
    this.gradio.trigger("say", { number: this.#number, talks: [talk(this.conversation, 0), talk(this.conversation, 1)] });
    this.#save();
    this.show();
    this.log.toEnd();
  }

  #hear(value) {
    const { running } = this;
    if (!running || (value.number !== null && value.number !== running.number)) return;
    running.heard = Date.now();
    if (value.refused) return this.#refused(value);
    running.turn.answers = value.answers;
    const ended = value.answers.every((answer) => answer.ended);
    if (ended) this.#end(value.answers.some((answer) => answer.error));
    else if (Date.now() - running.saved > SAVE_MS) this.#save(), (running.saved = Date.now());
    this.show();
  }

  /** Nothing was sent, so the text goes back to where it was written. */
  #refused(value) {
    this.conversation.turns.pop();
    if (!this.conversation.turns.length) this.conversation.name = "", this.store.remove(this.conversation.id), setParam("chat", null);
    const { asked } = this.running.turn;
    this.#end(true);
    if (!this.composer.text) this.composer.write(asked);
    else this.queue.unshift(asked);
    this.composer.tell(`Not sent. ${value.refused}`);
    if (value.field) document.querySelector(`#${value.field} input, #${value.field} textarea`)?.focus();
    this.show();
  }

  #end(broken) {
    this.running = null;
    this.held = broken && this.queue.length > 0;
    if (this.conversation.turns.length) this.#save();
    this.#measureSoon();
    if (!broken) this.#next(false);
    this.show();
  }

  #next(byHand) {
    if (this.running || !this.queue.length) return;
    if (byHand) this.held = false;
    this.#ask(this.queue.shift());
  }

  /** The server says every second that it is at work. Silence means that it was restarted, or that the connection is lost. */
  #watch() {
    if (!this.running || Date.now() - this.running.heard < SILENCE_MS) return;
    this.#cut({ error: "The dashboard's server does not answer any more. Retry sends the message again." });
  }

  /** End what is being answered, although more was to come or nothing has come. */
  #cut(why) {
    const turn = this.running?.turn;
    if (turn && !turn.answers.length) turn.answers = [unanswered(this.offer.chosen, this.offer.label)];
    for (const answer of turn?.answers ?? []) if (!answer.ended) Object.assign(answer, { ended: true, ...why });
    this.#end(true);
  }

  async #probe() {
    const lost = await fetch("/health", { cache: "no-store" }).then((answer) => !answer.ok, () => true);
    if (lost === this.lost || !this.offer) return;
    this.lost = lost;
    this.show();
  }

  /** Another tab kept a conversation. If it is the one that is open here, this tab goes on from it, or with one of its own. */
  #changedElsewhere(key) {
    const { conversation } = this;
    const kept = key === this.store.keyOf(conversation.id) && this.store.load(conversation.id);
    if (kept && asked(kept) === asked(conversation)) conversation.name = kept.name;
    else if (kept && this.running) this.#part();
    if (kept && !this.running && kept.turns.at(-1)?.answers.every((answer) => answer.finish !== "interrupted")) this.#show(kept);
    else this.show();
  }

  /** Both tabs have asked, so this one goes on with a conversation of its own: neither overwrites the other. */
  #part() {
    this.conversation.id = fresh().id;
    setParam("chat", this.conversation.id);
  }

  #save() {
    const kept = this.store.load(this.conversation.id);
    if (kept && asked(kept) !== this.#known) this.#part();
    this.#known = asked(this.conversation);
    if (!this.store.save(this.conversation)) this.composer.tell("This browser has no room for more conversations: this one is not kept. Delete some, or export it.");
  }

  async #render(conversation) {
    const answers = conversation.turns.flatMap((turn) => turn.answers);
    const made = await this.gradio.server.rendered(answers.map((answer) => answer.text)).catch(() => []);
    made.forEach((blocks, i) => (answers[i].blocks = blocks));
    if (this.conversation === conversation) this.show(), this.log.toEnd();
  }

  #measureSoon() {
    sessionStorage.setItem(DRAFT, this.composer.text);
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#measuring = ++this.#number;
      const text = this.composer.text.trim();
      const told = [...talk(this.conversation, 0), ...(text ? [{ role: "user", content: text }] : [])];
      if (!told.length || !this.able) return this.composer.measured({});
      if (this.running) return;
      this.gradio.trigger("measure", { number: this.#measuring, talk: told });
    }, MEASURE_MS);
  }

  #link() {
    const url = new URL("/chat", location.href);
    if (this.offer.chosen) url.searchParams.set("model", this.offer.chosen);
    const prompt = this.composer.text.trim() || this.conversation.turns[0]?.asked;
    if (prompt) url.searchParams.set("prompt", prompt);
    return String(url);
  }
}

/** @param {HTMLElement} element @param {{trigger: (name: string, data?: any) => void, server: Record<string, Function>}} gradio */
export function start(element, gradio) {
  element.classList.add("nc", "chat-app");
  new Chat(element, gradio);
}
