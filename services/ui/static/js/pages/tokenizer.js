// The tokenizer playground: the tokens of a text under one model's tokenizer, or under two side by side.
import { inference, Problem } from "../api.js";
import { fill, h } from "../dom.js";
import { number } from "../format.js";
import { param, setParam } from "../address.js";
import { field } from "../controls.js";
import { called, readStageNames } from "../stage_names.js";

const PAUSE_MS = 250;
const COLOURS = 6;
const LONGEST_IN_URL = 1500;
const FIRST = "The quick brown fox jumps over 13 lazy dogs.\nnaïve 日本語 🎉\n    return x ** 2";

export async function page(main) {
  const text = h("textarea", { id: "text", rows: "7", spellcheck: "false", value: param("text") ?? FIRST });
  const [left, right] = [h("select", { name: "model" }), h("select", { name: "beside" })];
  const sides = [side(left), side(right)];
  const written = field("Text", text, { hint: "Special tokens, such as <|bos|>, are read as plain text." });
  main.append(
    h("div", { class: "page-head" }, h("h1", null, "Tokenizer")),
    h("p", { class: "dim" }, "How a model's tokenizer cuts a text into tokens. Point at a token, or move with the arrow keys, to see its id and its bytes."),
    written,
    h("div", { class: "columns" }, sides.map((one) => one.node)),
  );
  const [{ data }] = await Promise.all([inference("GET", "/v1/models"), readStageNames()]);
  if (!data.length) return fill(main.lastChild, h("div", { class: "panel empty" }, h("h2", null, "No model yet"), h("p", { class: "dim" }, "The tokenizer of a run can be tried as soon as one of its checkpoints is promoted.")));
  const options = (none) => [none && h("option", { value: "" }, none), data.map((m) => h("option", { value: m.id }, `${m.run_name ?? m.id} · ${called(m.stage)} · step ${m.step}`))].flat(2).filter(Boolean);
  left.append(...options());
  right.append(...options("no second model"));
  left.value = data.some((m) => m.id === param("model")) ? param("model") : (data.find((m) => m.default) ?? data[0]).id;
  right.value = data.some((m) => m.id === param("beside")) ? param("beside") : "";

  let timer = 0;
  const refresh = () => {
    setParam("text", text.value !== FIRST && text.value.length <= LONGEST_IN_URL ? text.value : null);
    for (const one of sides) one.show(text.value);
  };
  text.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(refresh, PAUSE_MS);
  });
  for (const select of [left, right]) {
    select.addEventListener("change", () => {
      setParam(select.name, select.value);
      refresh();
    });
  }
  refresh();
}

/** One model: its choice, its counts and the coloured tokens. */
function side(select) {
  const choice = field(select.name === "model" ? "Model" : "Beside it", select);
  const facts = h("dl", { class: "facts" });
  const tokens = h("div", { class: "token-text", tabindex: "0", role: "group", "aria-label": "Tokens; arrow keys move" });
  const told = h("p", { class: "token-told small", role: "status" });
  const panel = h("div", { class: "stack" }, facts, tokens, told);
  let asked = 0;
  let rows = [];

  const tell = (at) => {
    if (at < 0 || at >= rows.length) return;
    tokens.querySelector(".here")?.classList.remove("here");
    tokens.children[at].classList.add("here");
    const { id, bytes, text } = rows[at];
    told.textContent = `Token ${at + 1} of ${rows.length}: ${JSON.stringify(text)} · id ${id} · ${bytes.length} ${bytes.length === 1 ? "byte" : "bytes"}: ${bytes.join(" ")}`;
  };
  tokens.addEventListener("pointerover", (event) => tell([...tokens.children].indexOf(event.target)));
  tokens.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    tell(Math.max(0, Math.min(rows.length - 1, [...tokens.children].findIndex((one) => one.classList.contains("here")) + step)));
  });

  async function show(text) {
    const mine = ++asked;
    panel.hidden = !select.value;
    choice.wrong("");
    if (!select.value) return;
    try {
      const found = text ? await inference("POST", "/tokenize", { model: select.value, prompt: text, add_special_tokens: false, return_token_strs: true, return_token_bytes: true }) : { tokens: [], token_strs: [], token_bytes: [] };
      if (mine !== asked) return;
      rows = found.tokens.map((id, i) => ({ id, text: found.token_strs[i], bytes: found.token_bytes[i].match(/../g) ?? [] }));
      const size = rows.reduce((sum, row) => sum + row.bytes.length, 0);
      const fact = (name, value) => h("div", null, h("dt", null, name), h("dd", null, value));
      fill(facts, fact("tokens", number(rows.length)), fact("bytes", number(size)), fact("characters", number([...text].length)), fact("bytes per token", rows.length ? number(size / rows.length, 3) : "–"));
      fill(tokens, rows.map((row, i) => h("span", { class: `t${i % COLOURS}`, title: `id ${row.id}` }, visible(row.text))));
      fill(told);
    } catch (err) {
      if (!(err instanceof Problem)) throw err;
      if (mine !== asked) return;
      panel.hidden = true; // what it shows is of another text
      choice.wrong(err.lines.join("\n"));
    }
  }
  return { node: h("section", { class: "stack", "aria-label": select.name === "model" ? "First model" : "Second model" }, choice, panel), show };
}

/** White space that can be seen. The line break itself stays. */
const visible = (text) => text.replace(/\t/g, "→\t").replace(/\n/g, "↵\n").replace(/ /g, "·");
