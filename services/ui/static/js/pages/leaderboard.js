// Finished runs by what they reached and what it took, beside published models.
import { get } from "../api.js";
import { h } from "../dom.js";
import { DASH, dollars, number, seconds, time } from "../format.js";
import { empty } from "../parts.js";
import { every } from "../repeat.js";
import { param, setParam } from "../address.js";
import { table } from "../table.js";

const POLL_MS = 30_000;
const MOST = 200;
const SIZES = { K: 1e3, M: 1e6, B: 1e9 };

const COLUMNS = [
  { id: "name", title: "Model", class: "wide", value: (row) => row.name, cell: name },
  { id: "core", title: "CORE", num: true, descends: true, hint: "Mean centered accuracy on 22 tasks, higher is better. ≈ means measured on a part of the examples.", value: (row) => row.core, cell: (row) => figure(row, "core", row.core_estimate ? "≈ " : "") },
  { id: "bpb", title: "Bits per byte", num: true, hint: "On the validation text, lower is better", value: (row) => row.val_bpb, cell: (row) => figure(row, "val_bpb") },
  { id: "chatcore", title: "ChatCORE", num: true, descends: true, hint: "Mean centered accuracy of the chat model, higher is better", value: (row) => row.chatcore, cell: (row) => figure(row, "chatcore") },
  { id: "hours", title: "Time", num: true, hint: "Hours of work; of a reference what is published", value: (row) => row.hours, cell: (row) => (row.hours === null ? DASH : seconds(3600 * row.hours)) },
  { id: "usd", title: "Cost", num: true, hint: "A dash means that the price of the GPUs is unknown", value: (row) => row.usd, cell: (row) => dollars(row.usd) },
  { id: "params", title: "Parameters", num: true, descends: true, value: size, cell: (row) => row.params ?? DASH },
  { id: "tokens", title: "Tokens", num: true, descends: true, hint: "Tokens that pretraining read", value: (row) => row.tokens, cell: (row) => number(row.tokens) },
  { id: "hardware", title: "Trained on", cell: (row) => h("span", { class: "break" }, row.hardware || (row.reference ? DASH : "no GPU")) },
  { id: "finished", title: "Finished", num: true, descends: true, value: (row) => row.finished_at, cell: (row) => time(row.finished_at, "ago") },
];

export async function page(main) {
  const references = h("input", { type: "checkbox", id: "references" });
  references.checked = param("references") !== "0";
  const list = table({ label: "Leaderboard", key: (row) => row.run_id ?? `reference ${row.name}`, columns: COLUMNS, sort: "-core", row: (row) => ({ class: row.reference ? "reference" : "" }) });
  const none = h("div", { hidden: true }, empty("No finished run yet",
    h("p", { class: "dim" }, "A run stands here as soon as all its stages have succeeded. Until then there are only the published models."),
    h("a", { class: "button", href: "/" }, "Go to the runs")));
  const compare = h("a", { class: "button push", hidden: true });
  let items = [];
  references.addEventListener("change", () => {
    setParam("references", references.checked ? null : "0");
    show();
  });
  main.append(
    h("div", { class: "page-head" }, h("h1", null, "Leaderboard"), compare),
    h("div", { class: "row" }, references, h("label", { for: "references" }, "Published models beside ours"), h("span", { class: "dim small" }, "Their figures were measured by others; the source stands below each name.")),
    none, list.node);

  function show() {
    const runs = items.filter((row) => !row.reference);
    const shown = references.checked ? items : runs;
    none.hidden = runs.length > 0;
    list.node.hidden = !shown.length;
    const first = [...runs].sort((a, b) => (b.core ?? -1) - (a.core ?? -1)).slice(0, 10);
    compare.hidden = first.length < 2;
    compare.textContent = `Compare ${first.length === runs.length ? "all" : "the best"} ${first.length}`;
    compare.href = `/compare?${new URLSearchParams(first.map((row) => ["run", row.run_id]))}`;
    list.show(shown);
  }
  await every(POLL_MS, async () => {
    ({ items } = await get("/leaderboard", { limit: MOST }));
    show();
  });
}

function name(row) {
  if (row.reference) return [h("span", { class: "break" }, row.name), " ", h("span", { class: "tag" }, "reference"), h("span", { class: "sub break" }, row.source)];
  return [h("a", { href: `/runs/${row.run_id}`, class: "break" }, row.name), " ", row.promoted && h("span", { class: "tag" }, "in chat"), h("span", { class: "sub break" }, [row.recipe, ...row.labels].join(" · "))];
}

const figure = (row, key, before = "") => (row[key] === null ? DASH : h("span", { class: row.reference ? "" : "own" }, before, row[key].toFixed(4)));

/** Parameters as a number: of a reference only "561M" is published. */
function size(row) {
  if (row.params_exact) return row.params_exact;
  const [, digits, letter] = /^([\d.]+)([KMB])$/i.exec(row.params ?? "") ?? [];
  return digits ? Number(digits) * SIZES[letter.toUpperCase()] : null;
}
