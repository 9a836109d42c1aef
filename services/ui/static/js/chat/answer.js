// One answer: calculator calls, text, probabilities of its tokens, and what it took.
import { fill, h, keyed } from "../dom.js";
import { number, percent } from "../format.js";
import { copyButton } from "../clipboard.js";
import { nodesOf } from "./html.js";

const ENDS = { length: "cut off at Max tokens", stopped: "stopped by you", interrupted: "interrupted: the page was closed" };
const LIKELY = [0.9, 0.6, 0.3, 0.1]; // lower bounds of the colours of a token, from likely to surprising

export class AnswerView {
  #answer = null;
  #shown = [];
  #byHand = null; // whether the tokens are shown: the visitor's choice, otherwise they are if there are any

  constructor({ retry }) {
    this.calls = h("ul", { class: "calls", "aria-label": "Calculator calls" });
    this.text = h("div", { class: "text" });
    this.tokens = h("div", { class: "tokens", tabindex: "0", role: "group", "aria-label": "Tokens with their probabilities; arrow keys move" });
    this.token = h("p", { class: "token dim small", role: "status" });
    this.wrong = h("p", { class: "wrong", role: "alert", hidden: true });
    this.line = h("p", { class: "line dim small" });
    this.toggle = h("button", { type: "button", class: "plain", onclick: () => this.#switch() }, "Probabilities");
    this.retry = h("button", { type: "button", class: "plain", onclick: retry }, "Retry");
    this.copy = copyButton(() => this.#answer.text);
    this.copy.className = "plain";
    this.tools = h("div", { class: "row tools" }, this.copy, this.retry, this.toggle);
    this.node = h("article", { class: "answer", "aria-label": "Answer" }, h("p", { class: "by small" }), this.calls, this.text, this.tokens, this.token, this.wrong, this.line, this.tools);
    this.tokens.addEventListener("pointerover", (event) => this.#tell(event.target));
    this.tokens.addEventListener("keydown", (event) => this.#move(event));
  }

  show(answer, { last, busy }) {
    this.#answer = answer;
    this.node.dataset.ended = answer.ended;
    this.node.firstChild.textContent = `${answer.label} · temperature ${answer.temperature}`;
    keyed(this.calls, answer.calculations.map((one, i) => ({ ...one, i })), (one) => one.i, () => h("li"), (node, one) => fill(node, "calculator ", h("code", null, one.code), " → ", one.output ? h("code", null, one.output) : "no value"));
    this.calls.hidden = !answer.calculations.length;
    const withTokens = answer.tokens.length > 0 && (this.#byHand ?? true);
    this.tokens.hidden = this.token.hidden = !withTokens;
    this.text.hidden = withTokens;
    if (withTokens) this.#showTokens();
    else this.#showText();
    this.wrong.textContent = answer.error;
    this.wrong.hidden = !answer.error;
    this.line.textContent = lineOf(answer);
    this.tools.hidden = !answer.ended;
    this.retry.hidden = !last || busy;
    this.toggle.hidden = !answer.tokens.length;
    this.toggle.setAttribute("aria-pressed", String(withTokens));
  }

  /** Only the blocks that changed are made anew, so that what somebody has selected above stays selected. */
  #showText() {
    const { blocks, text, ended, error, finish } = this.#answer;
    if (!blocks.length && !text) return fill(this.text, ended ? !error && !ENDS[finish] && h("p", { class: "dim" }, "The model ended its turn without any text.") : h("span", { class: "waits", role: "status", "aria-label": "The model is thinking" }));
    const wanted = blocks.length ? blocks : [null];
    if (this.text.querySelector(":scope > .waits, :scope > p.dim")) fill(this.text), (this.#shown = []);
    while (this.text.children.length > wanted.length) this.text.lastChild.remove();
    wanted.forEach((block, i) => {
      const made = block === null ? text : block;
      if (this.#shown[i] === made && this.text.children[i]) return;
      const node = h("div", { class: block === null ? "plain" : null }, block === null ? text : nodesOf(block));
      for (const code of node.querySelectorAll("pre")) code.before(copyCode(code));
      this.text.children[i] ? this.text.children[i].replaceWith(node) : this.text.append(node);
    });
    this.#shown = blocks.length ? [...blocks] : [text];
  }

  #showTokens() {
    const { tokens } = this.#answer;
    while (this.tokens.children.length > tokens.length) this.tokens.lastChild.remove();
    for (let i = this.tokens.children.length; i < tokens.length; i++) {
      const [text, share] = tokens[i];
      const level = LIKELY.findIndex((bound) => share >= bound);
      this.tokens.append(h("span", { class: `p${level < 0 ? LIKELY.length : level}`, title: percent(share, 1) }, text));
    }
    if (!this.token.textContent) this.token.textContent = "The stronger the colour, the less likely the token was. Point at one for its alternatives.";
  }

  #tell(node) {
    const at = [...this.tokens.children].indexOf(node);
    if (at < 0) return;
    this.tokens.querySelector(".here")?.classList.remove("here");
    node.classList.add("here");
    const [text, share, top] = this.#answer.tokens[at];
    const others = top.filter(([other]) => other !== text).map(([other, p]) => `${quoted(other)} ${percent(p, 1)}`);
    this.token.textContent = `${quoted(text)} ${percent(share, 1)}${others.length ? ` · instead: ${others.join(", ")}` : ""}`;
  }

  #move(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const here = this.tokens.querySelector(".here");
    this.#tell((step > 0 ? here?.nextElementSibling : here?.previousElementSibling) ?? this.tokens.children[0]);
  }

  #switch() {
    this.#byHand = this.tokens.hidden;
    this.show(this.#answer, { last: !this.retry.hidden, busy: false });
  }
}

function lineOf({ stats, finish, ended }) {
  const parts = [];
  if (stats.tokens !== undefined) parts.push(`${number(stats.tokens)} ${stats.tokens === 1 ? "token" : "tokens"}`);
  if (stats.tokens_per_s !== undefined) parts.push(`${number(stats.tokens_per_s, 3)} tokens/s`);
  if (stats.first_s !== undefined) parts.push(`first token after ${stats.first_s.toFixed(2)} s`);
  if (stats.prompt_tokens !== undefined) parts.push(`${number(stats.prompt_tokens)} tokens read`);
  if (ended && ENDS[finish]) parts.push(ENDS[finish]);
  return parts.join(" · ");
}

const quoted = (text) => `“${text.replace(/\n/g, "↵")}”`;

function copyCode(code) {
  const button = copyButton(() => code.textContent, "Copy code");
  button.classList.add("copy-code");
  return button;
}
