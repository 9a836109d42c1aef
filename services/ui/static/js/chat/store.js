// Conversations, kept in this browser. Each visitor of a shared browser sees only his own.

/**
 * @typedef {{text: string, label: string, model: string, temperature: number, calculations: {code: string, output: string}[],
 *   tokens: [string, number, [string, number][]][], finish: string, error: string, ended: boolean, blocks: string[],
 *   stats: Record<string, number>}} Answer
 * @typedef {{asked: string, answers: Answer[], dropped?: boolean}} Turn a dropped turn is shown, but not sent to the model any more
 * @typedef {{id: string, name: string, at: number, turns: Turn[]}} Conversation
 */
const NAME_LENGTH = 48;
const CUT = ["stopped", "interrupted"];

export class Store {
  /** @param {string} owner id of the visitor */
  constructor(owner) {
    this.prefix = `nanochat.chat.${owner}.`;
  }

  /** @returns {{id: string, name: string, at: number}[]} newest first */
  list() {
    return read(`${this.prefix}list`) ?? [];
  }

  keyOf = (id) => this.prefix + id;

  /** @returns {Conversation | null} */
  load(id) {
    const found = read(this.keyOf(id));
    for (const turn of found?.turns ?? []) if (!turn.answers.length) turn.answers = [unanswered("", "The model")];
    for (const answer of found?.turns.flatMap((turn) => turn.answers) ?? []) {
      answer.blocks = [];
      if (!answer.ended) Object.assign(answer, { ended: true, finish: "interrupted" });
    }
    return found;
  }

  /** Keep it, at the top of the list. False if the browser has no room for it. */
  save(conversation) {
    conversation.at = Date.now();
    const { id, name, at } = conversation;
    const kept = { ...conversation, turns: conversation.turns.map((turn) => ({ ...turn, answers: turn.answers.map(({ blocks, ...answer }) => answer) })) };
    try {
      localStorage.setItem(this.keyOf(id), JSON.stringify(kept));
      this.#write([{ id, name, at }, ...this.list().filter((one) => one.id !== id)]);
      return true;
    } catch {
      return false;
    }
  }

  rename(id, name) {
    const found = read(this.keyOf(id));
    if (!found) return;
    localStorage.setItem(this.keyOf(id), JSON.stringify({ ...found, name }));
    this.#write(this.list().map((one) => (one.id === id ? { ...one, name } : one)));
  }

  remove(id) {
    localStorage.removeItem(this.keyOf(id));
    this.#write(this.list().filter((one) => one.id !== id));
  }

  #write(list) {
    localStorage.setItem(`${this.prefix}list`, JSON.stringify(list));
  }
}

/** @returns {Conversation} */
export const fresh = () => ({ id: `c${Date.now().toString(36)}${Math.random().toString(36).slice(2, 6)}`, name: "", at: 0, turns: [] });

export function nameOf(text) {
  const line = text.trim().replace(/\s+/g, " ");
  return line.length > NAME_LENGTH ? `${line.slice(0, NAME_LENGTH - 1)}…` : line;
}

/** All that was asked: two that differ in it are not the same conversation any more. */
export const asked = (conversation) => JSON.stringify(conversation.turns.map((turn) => turn.asked));

/** What the model gets to read on one side: its own words and the visitor's, and nothing that the page added. */
export function talk(conversation, side) {
  return conversation.turns
    .filter((turn) => !turn.dropped && !failed(turn, side))
    .flatMap((turn) => [{ role: "user", content: turn.asked }, ...answered(turn, side)]);
}

/** A turn without an answer because the service failed, or because it ended too soon. It is not sent again with the next message. */
export function failed(turn, side = 0) {
  const answer = of(turn, side);
  return Boolean(answer) && !answer.text && (Boolean(answer.error) || CUT.includes(answer.finish));
}

/** Stands for the answer in a turn that ends before any came. @returns {Answer} */
export const unanswered = (model, label) => ({ label, model, temperature: "–", text: "", blocks: [], calculations: [], tokens: [], finish: "", error: "", ended: false, stats: {} });

const of = (turn, side) => turn.answers[Math.min(side, turn.answers.length - 1)];

function answered(turn, side) {
  const answer = of(turn, side);
  return answer ? [{ role: "assistant", content: answer.text }] : [];
}

function read(key) {
  try {
    return JSON.parse(localStorage.getItem(key));
  } catch {
    return null;
  }
}
