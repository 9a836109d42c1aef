// The command line that starts the same run.

/** The command that starts the same run: `nanochat submit NAME --set field=value …`. */
export function submitLine(recipe, differing) {
  const sets = differing.filter((c) => c.after !== undefined).map((c) => `--set ${quoted(`${c.field}=${written(c.after)}`)}`);
  return ["nanochat submit", quoted(recipe), ...sets].join(" ");
}

/** As the parser of the command line reads it: JSON, or a bare text where that is not JSON. */
function written(value) {
  if (typeof value !== "string") return JSON.stringify(value);
  try {
    JSON.parse(value);
    return JSON.stringify(value); // "5" and "null" are texts here
  } catch {
    return value.trim() === value && value ? value : JSON.stringify(value);
  }
}

/** For a POSIX shell. */
const quoted = (text) => (/^[A-Za-z0-9_.=:\/,+@%-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);
