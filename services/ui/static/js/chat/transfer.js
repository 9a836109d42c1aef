// A conversation as a file: Markdown to read, JSON to work with.
export function asMarkdown(conversation) {
  const parts = [`# ${conversation.name}`];
  for (const turn of conversation.turns) {
    parts.push(`## You\n\n${turn.asked}`);
    for (const answer of turn.answers) {
      const calls = answer.calculations.map((one) => `> calculator: \`${one.code}\` → \`${one.output || "no value"}\``);
      parts.push([`## ${answer.label} (temperature ${answer.temperature})`, ...calls, answer.text || answer.error].join("\n\n"));
    }
  }
  return `${parts.join("\n\n")}\n`;
}

/** Messages as the API takes them, with what is known of each answer. Of two answers side by side, the second is an `alternative`. */
export function asJson(conversation) {
  const messages = conversation.turns.flatMap((turn) => [
    { role: "user", content: turn.asked },
    ...turn.answers.slice(0, 1).map((answer) => ({ role: "assistant", content: answer.text, ...details(answer) })),
    ...turn.answers.slice(1).map((answer) => ({ role: "assistant", content: answer.text, alternative: true, ...details(answer) })),
  ]);
  return JSON.stringify({ name: conversation.name, saved_at: new Date(conversation.at).toISOString(), messages }, null, 2);
}

function details({ model, label, temperature, calculations, finish, error, stats }) {
  return { model, label, temperature, finish, ...(error && { error }), ...(calculations.length && { calculator: calculations }), stats };
}

export const fileName = (conversation, ending) => `${conversation.name.replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "").slice(0, 40) || "chat"}.${ending}`;
