// The project's webhooks: where events are sent, and whether they arrive.
import { del, get, patch, path, post } from "../api.js";
import { fill, h } from "../dom.js";
import { number, time } from "../format.js";
import { act, ask } from "../controls.js";
import { makeWebhook } from "./make_webhook.js";
import { showSecret } from "./secret.js";
import { table } from "../table.js";
import { empty, mark, section } from "../parts.js";

const MOST = 50; // in a project

/** @returns {{node: HTMLElement, refresh: () => Promise<void>}} */
export function webhooks() {
  const said = h("div", { class: "said", role: "status" });
  const secret = h("div", { class: "said", role: "status" });
  const place = h("div");
  const list = table({ label: "Webhooks", parameter: "webhooks", key: (hook) => hook.id, columns: columns(said, refresh) });

  async function refresh() {
    const { items } = await get("/webhooks", { limit: MOST });
    if (!items.length) {
      return fill(place, empty("No webhooks", h("p", { class: "dim" }, "A webhook sends the events of this project's runs to an address of yours, such as a chat channel.")));
    }
    if (!list.node.isConnected) fill(place, list.node);
    list.show(items);
  }
  async function make() {
    const made = await makeWebhook();
    if (!made) return;
    showSecret(secret, made);
    await refresh();
  }
  const button = h("button", { type: "button", onclick: make }, "Make a webhook");
  return { node: section("Webhooks", { id: "h-webhooks", hint: "Of this project.", actions: [button] }, secret, said, place), refresh };
}

function state(hook) {
  if (!hook.active) return [mark("⊘", "Off"), hook.off_reason && h("span", { class: "sub break" }, hook.off_reason)];
  if (hook.failing_since) return [mark("✗", "Failing", "bad"), h("span", { class: "sub break" }, "since ", time(hook.failing_since, "ago"), hook.last_error && `: ${hook.last_error}`)];
  return mark("●", "On", "good");
}

function columns(place, changed) {
  return [
    { id: "name", title: "Webhook", value: (hook) => hook.name, cell: (hook) => [h("strong", { class: "break" }, hook.name), h("code", { class: "sub" }, hook.id)] },
    { id: "to", title: "Sends to", value: (hook) => hook.origin, cell: (hook) => [h("code", { class: "break" }, hook.origin), hook.format !== "json" && h("span", { class: "sub" }, hook.format)] },
    { id: "state", title: "State", cell: state },
    { id: "kinds", title: "Events", cell: (hook) => [hook.kinds.join(", "), of(hook)] },
    { id: "waiting", title: "Waiting", num: true, descends: true, value: (hook) => hook.waiting, cell: (hook) => number(hook.waiting) },
    { id: "last", title: "Last try", value: (hook) => hook.last_try_at, cell: (hook) => [time(hook.last_try_at, "ago"), hook.last_status && h("span", { class: "sub" }, `HTTP ${hook.last_status}`)] },
    { id: "act", title: "Actions", cell: (hook) => h("div", { class: "row" },
      act("Ping", () => post(path`/webhooks/${hook.id}/ping`).then(changed), { place, "aria-label": `Ping ${hook.name}` }),
      onOff(hook, place, changed),
      h("button", { type: "button", class: "danger", "aria-label": `Delete ${hook.name}`, onclick: async () => (await remove(hook)) && changed() }, "Delete")) },
  ];
}

// The button stays when its label changes, so it asks for the opposite of what it says now.
function onOff(hook, place, changed) {
  const button = act(hook.active ? "Switch off" : "Switch on", () => patch(path`/webhooks/${hook.id}`, { active: button.textContent === "Switch on" }).then(changed), { place });
  return button;
}

function of(hook) {
  const limits = [hook.run_id && ["of ", h("a", { href: `/runs/${hook.run_id}` }, hook.run_id)], hook.labels.length > 0 && `with the labels ${hook.labels.join(", ")}`].filter(Boolean);
  return limits.length > 0 && h("span", { class: "sub break" }, limits);
}

const remove = (hook) => ask({
  title: `Delete ${hook.name}?`,
  text: "Nothing is sent to it any more, and what was sent is forgotten.",
  action: "Delete the webhook",
  danger: true,
  run: () => del(path`/webhooks/${hook.id}`),
});
