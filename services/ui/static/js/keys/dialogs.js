// The dialogs that make, expire and revoke an API key.
import { del, patch, path, post } from "../api.js";
import { h } from "../dom.js";
import { ask, field } from "../controls.js";

const DAY_MS = 86_400_000;
const LIFETIMES = [["", "never"], ["1", "in 1 day"], ["7", "in 7 days"], ["30", "in 30 days"], ["90", "in 90 days"], ["365", "in 1 year"]];
const ROLES = [["viewer", "viewer: looks and plans"], ["operator", "operator: also starts and steers runs"], ["admin", "admin: also manages keys and workers"]];

/** Resolves to the new key with its secret, or to null. */
export async function makeKey(projects) {
  let made = null;
  await ask({
    title: "Make a key",
    action: "Make the key",
    fields: [
      field("Name", h("input", { name: "name", required: true, maxlength: 100, autocomplete: "off" }), { hint: "Whom or what it is for, such as anna's laptop." }),
      field("Role", choice("role", ROLES, "operator")),
      field("Project", h("input", { name: "project", required: true, pattern: "[a-z0-9][a-z0-9_\\-]{0,62}", value: document.documentElement.dataset.project, list: "projects", autocomplete: "off" }),
        { hint: "Lower-case letters, digits, _ and -. A project exists as soon as a key names it." }),
      h("datalist", { id: "projects" }, projects.map((name) => h("option", { value: name }))),
      field("Expires", choice("days", LIFETIMES, "")),
    ],
    run: async ({ name, role, project, days }) => {
      made = await post("/keys", { name, role, project, expires_at: days ? new Date(Date.now() + days * DAY_MS).toISOString() : null });
    },
  });
  return made;
}

export function expireKey(key) {
  const at = h("input", { name: "at", type: "datetime-local", value: key.expires_at ? local(new Date(key.expires_at)) : "" });
  return ask({
    title: `When does ${key.name} expire?`,
    text: "From then on it is refused. A time in the past ends it at once.",
    action: "Set the expiry",
    fields: [field("Expires", at, { hint: "In your time zone. Leave it empty for never." })],
    run: ({ at: value }) => patch(path`/keys/${key.id}`, { expires_at: value ? new Date(value).toISOString() : null }),
  });
}

export function revokeKey(key) {
  return ask({
    title: `Revoke ${key.name}?`,
    text: ["Whoever uses it is refused from now on. This cannot be taken back; a new key can be made.", "Runs that were started with it go on."],
    action: "Revoke the key",
    danger: true,
    run: () => del(path`/keys/${key.id}`),
  });
}

const choice = (name, options, chosen) => {
  const select = h("select", { name }, options.map(([value, text]) => h("option", { value }, text)));
  select.value = chosen;
  return select;
};

/** The value of a datetime-local field: local time without a zone. */
function local(when) {
  const shifted = new Date(when.getTime() - when.getTimezoneOffset() * 60_000);
  return shifted.toISOString().slice(0, 16);
}
