// The fields of a recipe, as GET /v1/recipes/schema tells them.

const NOT_SET_HERE = new Set(["name", "description"]); // of the recipe, not of a run

/**
 * @typedef {object} Field as the API has it, and:
 * @property {string} part its section within the group, such as optim.resid; empty if it is in none
 */

/**
 * @returns {{name: string, title: string, description: string, fields: Field[]}[]} the groups, without what no run sets. Fields of a
 *   section stand together, and a table that has several forms, such as data.source, is one field.
 */
export function groupsOf({ groups }) {
  const forms = new Set(groups.flatMap((group) => group.fields).flatMap((field) => Object.keys(field.only_if))); // paths of what chooses a form
  return groups.map((group) => {
    const all = group.fields.filter((field) => !NOT_SET_HERE.has(field.path) && !Object.keys(field.only_if).length);
    const fields = all.map((field) => (forms.has(field.path) ? { ...field, path: field.path.slice(0, field.path.lastIndexOf(".")), type: "table" } : field));
    return { ...group, fields: fields.map((field) => ({ ...field, part: field.path.split(".").slice(1, -1).join(".") })).sort((a, b) => a.part.localeCompare(b.part)) };
  });
}

/** The bounds of a field in words; empty if it has none. */
export function boundsOf({ minimum, maximum, exclusive_minimum: above, exclusive_maximum: below, special }) {
  const limit = (x) => (Math.abs(x) >= 1e12 ? x.toExponential().replace("e+", "e") : x.toLocaleString("en"));
  const parts = [["at least", minimum], ["more than", above], ["at most", maximum], ["less than", below]].filter(([, x]) => x !== null).map(([words, x]) => `${words} ${limit(x)}`);
  return parts.length ? [...parts, ...special.map((value) => `or ${value}`)].join(", ") : "";
}
