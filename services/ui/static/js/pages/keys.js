// API keys, for admins: who may do what, until when.
import { get, isAdmin } from "../api.js";
import { h } from "../dom.js";
import { DASH, time } from "../format.js";
import { expireKey, makeKey, revokeKey } from "../keys/dialogs.js";
import { mark } from "../parts.js";
import { showSecret } from "../keys/secret.js";
import { webhooks } from "../keys/webhooks.js";
import { every } from "../repeat.js";
import { param, setParam } from "../address.js";
import { table } from "../table.js";

const POLL_MS = 10_000;
const STATE = { valid: ["●", "Valid", "good"], expired: ["◌", "Expired", ""], revoked: ["⊘", "Revoked", ""] };

export async function page(main) {
  const head = h("div", { class: "page-head" }, h("h1", null, "Keys"));
  main.append(head);
  if (!isAdmin()) {
    main.append(h("div", { class: "notice" }, `Only admins manage keys. You are signed in as ${document.documentElement.dataset.role}; ask an admin of this stack for another key.`));
    return;
  }
  let keys = [];
  let own = "";
  let endedToo = param("ended") === "1";
  const secret = h("div", { class: "said", role: "status" });
  const ended = h("input", { type: "checkbox", id: "ended" });
  ended.checked = endedToo;
  const endedLabel = h("label", { for: "ended" });
  const hooks = webhooks();
  const list = table({ label: "API keys", key: (key) => key.id, columns: columns(() => ({ keys, own }), refresh) });

  ended.addEventListener("change", () => {
    endedToo = ended.checked;
    setParam("ended", endedToo ? "1" : null);
    show();
  });
  head.append(h("button", { type: "button", class: "primary push", onclick: make }, "Make a key"));
  main.append(
    h("p", { class: "dim" }, "A viewer looks and plans. An operator also starts and steers runs. An admin also manages keys and workers. A key sees only the runs of its project."),
    secret, h("div", { class: "row" }, ended, endedLabel), list.node, hooks.node);

  function show() {
    const count = keys.filter((key) => state(key) !== "valid").length;
    endedLabel.textContent = `Show revoked and expired keys (${count})`;
    ended.parentElement.hidden = count === 0;
    list.show(endedToo ? keys : keys.filter((key) => state(key) === "valid"));
  }
  async function refresh() {
    ({ items: keys } = await get("/keys"));
    show();
  }
  async function make() {
    const made = await makeKey([...new Set(keys.map((key) => key.project))]);
    if (!made) return;
    showSecret(secret, made);
    await refresh();
  }
  own = (await get("/key")).id;
  await every(POLL_MS, () => Promise.all([refresh(), hooks.refresh()]));
}

function state(key) {
  if (key.revoked_at) return "revoked";
  return key.expires_at && new Date(key.expires_at) <= new Date() ? "expired" : "valid";
}

const lasts = (key) => key.role === "admin" && !key.expires_at && state(key) === "valid";

function columns(known, changed) {
  return [
    { id: "name", title: "Key", value: (key) => key.name, cell: (key) => [h("strong", { class: "break" }, key.name), " ", key.id === known().own && h("span", { class: "tag" }, "yours"), h("code", { class: "sub" }, key.id)] },
    { id: "state", title: "State", value: state, cell: (key) => [mark(...STATE[state(key)]), key.revoked_at && h("span", { class: "sub" }, time(key.revoked_at, "ago"))] },
    { id: "role", title: "Role", value: (key) => key.role, cell: (key) => key.role },
    { id: "project", title: "Project", value: (key) => key.project, cell: (key) => h("span", { class: "break" }, key.project) },
    { id: "expires", title: "Expires", value: (key) => key.expires_at ?? "9999", cell: (key) => (key.expires_at ? time(key.expires_at) : "never") },
    { id: "created", title: "Made", value: (key) => key.created_at, cell: (key) => time(key.created_at, "ago") },
    { id: "act", title: "Actions", cell: (key) => actions(key, known, changed) },
  ];
}

function actions(key, known, changed) {
  const { keys, own } = known();
  if (state(key) === "revoked") return DASH;
  if (key.id === own) return h("span", { class: "dim small" }, "You are signed in with it. Another admin can revoke it.");
  if (lasts(key) && keys.filter(lasts).length === 1) return h("span", { class: "dim small" }, "The last admin key that never expires. Make another one first.");
  const then = (dialog) => async () => (await dialog(known().keys.find((one) => one.id === key.id) ?? key)) && changed();
  return h("div", { class: "row" },
    h("button", { type: "button", "aria-label": `Change the expiry of ${key.name}`, onclick: then(expireKey) }, "Expiry"),
    h("button", { type: "button", class: "danger", "aria-label": `Revoke ${key.name}`, onclick: then(revokeKey) }, "Revoke"));
}
