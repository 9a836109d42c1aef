// The fields of a recipe, read from its JSON schema.

/**
 * @typedef {object} Field
 * @property {string} path such as base.optim.matrix_lr
 * @property {string} title in words
 * @property {string} help
 * @property {"whole" | "number" | "mixed" | "yesno" | "choice" | "text" | "list" | "json"} kind mixed: a number or a word; list: a few numbers or words
 * @property {boolean} nullable
 * @property {string} unit empty if it has none
 * @property {string} bounds in words; empty if there are none
 * @property {any[]} [options] of a choice
 * @property {string} [part] the section within its group, such as optim
 */

const NOT_SET_HERE = new Set(["name", "description"]); // of the recipe, not of a run

/**
 * @param {object} schema JSON schema of a recipe
 * @returns {{id: string, title: string, help: string, fields: Field[]}[]} one group for each section, fields of the recipe itself first
 */
export function groupsOf(schema) {
  const own = { id: "run", title: "Whole run", help: "", fields: [] };
  const groups = [own];
  for (const [name, property] of Object.entries(schema.properties)) {
    if (NOT_SET_HERE.has(name)) continue;
    const table = tableOf(schema, property);
    if (table) groups.push({ id: name, title: words(name), help: helpOf(property, table, name), fields: [...fieldsOf(schema, table, name, "")] });
    else own.fields.push(field(schema, property, name, name, ""));
  }
  return groups.filter((group) => group.fields.length);
}

/** What the section is; a text that only repeats its title says nothing. */
function helpOf(property, table, name) {
  const texts = [property.description, table.description].filter((text) => text && text !== `${words(name)}.`);
  return texts[0] ?? "";
}

function* fieldsOf(schema, table, path, part) {
  const inner = [];
  for (const [name, property] of Object.entries(table.properties ?? {})) {
    const section = tableOf(schema, property);
    if (section) inner.push([section, `${path}.${name}`, part ? `${part} · ${words(name)}` : words(name)]);
    else yield field(schema, property, `${path}.${name}`, name, part);
  }
  for (const [section, at, title] of inner) yield* fieldsOf(schema, section, at, title);
}

/** The table that a property is, if it has fields of its own. */
function tableOf(schema, property) {
  const options = (property.anyOf ?? [property]).filter((option) => option.type !== "null");
  if (options.length !== 1) return null;
  const found = resolved(schema, options[0]);
  return found.type === "object" && found.properties ? found : null;
}

const resolved = (schema, option) => (option.$ref ? option.$ref.split("/").slice(1).reduce((at, key) => at[key], schema) : option);

function field(schema, property, path, name, part) {
  const all = (property.anyOf ?? [property]).map((option) => resolved(schema, option));
  const options = all.filter((option) => option.type !== "null");
  const nullable = options.length < all.length;
  const made = { path, title: words(name), help: property.description ?? "", nullable, unit: property.unit ?? options.find((option) => option.unit)?.unit ?? "", bounds: boundsOf(options), part, kind: "json" };
  const [option] = options;
  if (options.every((one) => one.enum || "const" in one)) return { ...made, kind: "choice", options: options.flatMap((one) => one.enum ?? [one.const]) };
  const types = new Set(options.map((one) => one.type ?? typeof one.const));
  const entries = [option.items, ...(option.prefixItems ?? [])].filter(Boolean);
  if (entries.length && entries.every((entry) => ["number", "integer", "string"].includes(entry.type))) return { ...made, kind: "list" };
  if (types.has("array") || types.has("object") || option.oneOf) return made;
  if (types.has("boolean") && types.size === 1) return { ...made, kind: "yesno" };
  if (types.size > 1 || option.enum || "const" in option) return { ...made, kind: "mixed" };
  return { ...made, kind: { integer: "whole", number: "number" }[option.type] ?? "text" };
}

function boundsOf(options) {
  const limit = (x) => (Math.abs(x) >= 1e12 ? x.toExponential().replace("e+", "e") : x.toLocaleString("en"));
  const words = options.filter((option) => "const" in option).map((option) => `or ${option.const}`);
  for (const { minimum, exclusiveMinimum, maximum, exclusiveMaximum } of options) {
    const parts = [
      minimum !== undefined && `at least ${limit(minimum)}`,
      exclusiveMinimum !== undefined && `more than ${limit(exclusiveMinimum)}`,
      maximum !== undefined && `at most ${limit(maximum)}`,
      exclusiveMaximum !== undefined && `less than ${limit(exclusiveMaximum)}`,
    ].filter(Boolean);
    if (parts.length) return [...parts, ...words].join(", ");
  }
  return "";
}

const NAMES = { rl: "RL", sft: "SFT", mid: "Midtraining", base: "Pretraining", tok_eval: "Tokenizer evaluation", base_eval: "Base evaluation", chat_eval: "Chat evaluation", from: "Start from a model", init: "Initial weights", optim: "Optimizer", resid: "Residual scalars", x0: "x0 scalars", param_data_ratio: "Tokens per parameter", num_iterations: "Steps", enabled: "Part of the run" };
const PARTS = { lr: "LR", tok: "tokenizer", eval: "evaluation", flops: "FLOPs", bpb: "bits per byte", core: "CORE", rope: "RoPE", qk: "QK", mlp: "MLP", num: "number of", frac: "fraction", std: "standard deviation", init: "initial", seq: "sequence", len: "length", val: "validation", dim: "dimension" };

/** A name of the recipe as words: core_max_per_task → "CORE max per task". */
export function words(name) {
  const text = NAMES[name] ?? name.split("_").map((part) => PARTS[part] ?? part).join(" ");
  return text[0].toUpperCase() + text.slice(1);
}
