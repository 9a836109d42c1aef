// What can be done with the selected runs, and what came of it.
import { Problem, del, mayOperate, patch, path } from "../api.js";
import { fill, h } from "../dom.js";
import { FINISHED } from "../format.js";
import { ask, field } from "../controls.js";

const MOST_COMPARED = 10;
const AT_ONCE = 4; // requests
const LABEL = /^[A-Za-z0-9][A-Za-z0-9_.:/=-]{0,62}$/;

/**
 * @param {{selected: () => object[], clear: () => void, store: () => {put: Function, drop: Function}}} list
 * @returns {{node: HTMLElement, update: () => void}} a bar that is there while runs are selected; `update` follows the selection
 */
export function actionBar({ selected, clear, store }) {
  const count = h("strong", { role: "status" });
  const compare = h("a", { class: "button", role: "link" }, "Compare");
  const buttons = [
    [button("Labels…", labels), () => null],
    [button("Archive", () => archive(true)), (runs) => (runs.every((run) => FINISHED.has(run.status)) ? null : "Only runs that have ended can be archived.")],
    [button("Put back", () => archive(false)), () => null],
    [button("Delete…", remove, "danger"), (runs) => (runs.every((run) => FINISHED.has(run.status)) ? null : "Only runs that have ended can be deleted.")],
  ];
  const why = h("span", { class: "dim small" });
  const bar = h("div", { class: "row selection", role: "group", "aria-label": "Selected runs", hidden: true }, count, compare, buttons.map(([node]) => node), h("button", { type: "button", class: "plain", onclick: clear }, "Clear"), why);
  const outcome = h("div", { role: "status" });
  const node = h("div", { class: "stack", hidden: true }, bar, outcome);

  function close() {
    fill(outcome);
    update();
  }

  function button(title, work, tone) {
    const node = h("button", { type: "button", class: tone }, title);
    node.addEventListener("click", () => work(selected()));
    return node;
  }

  function update() {
    const runs = selected();
    bar.hidden = !runs.length;
    node.hidden = bar.hidden && !outcome.childElementCount;
    if (!runs.length) return;
    count.textContent = `${runs.length.toLocaleString("en")} selected`;
    const fits = runs.length >= 2 && runs.length <= MOST_COMPARED;
    if (fits) compare.href = `/compare?${runs.map((run) => `run=${encodeURIComponent(run.id)}`).join("&")}`;
    else compare.removeAttribute("href");
    compare.setAttribute("aria-disabled", String(!fits));
    const reasons = new Set();
    for (const [node, refusal] of buttons) {
      const reason = mayOperate() ? refusal(runs) : "Your key may look but not change anything.";
      node.disabled = Boolean(reason);
      node.title = reason ?? "";
      if (reason) reasons.add(reason);
    }
    const archived = runs.every((run) => run.archived_at);
    buttons[1][0].hidden = archived;
    buttons[2][0].hidden = !archived;
    if (!fits) reasons.add(`Select 2 to ${MOST_COMPARED} runs to compare them.`);
    fill(why, [...reasons].join(" "));
  }

  async function each(runs, done, work) {
    const failed = [];
    const waiting = [...runs];
    let worked = 0;
    node.hidden = false;
    const tell = () => fill(outcome, h("p", { class: "notice" }, `${done} ${worked} of ${runs.length}…`));
    tell();
    await Promise.all(Array.from({ length: AT_ONCE }, async () => {
      for (let run = waiting.shift(); run; run = waiting.shift()) {
        try {
          await work(run);
          worked += 1;
          tell();
        } catch (err) {
          if (!(err instanceof Problem)) throw err;
          failed.push([run, err.message]);
        }
      }
    }));
    fill(outcome, h("div", { class: `notice ${failed.length ? "bad" : "good"}` },
      h("div", { class: "row" }, h("span", null, `${done} ${worked === 1 ? "1 run" : `${worked} runs`}.`, failed.length ? ` ${failed.length === 1 ? "1 stayed as it was" : `${failed.length} stayed as they were`}:` : ""), h("button", { type: "button", class: "plain push", onclick: close }, "Close")),
      failed.length > 0 && h("ul", null, failed.slice(0, 20).map(([run, message]) => h("li", null, h("a", { href: `/runs/${run.id}` }, run.name), ` ${message}`)))));
    update();
  }

  function archive(archived) {
    return each(selected(), archived ? "Archived" : "Put back", async (run) => {
      await patch(path`/runs/${run.id}`, { archived });
      store().drop(run.id);
    });
  }

  async function remove(runs) {
    const which = runs.length === 1 ? runs[0].name : `${runs.length} runs`;
    const sure = await ask({ title: `Delete ${which}?`, text: "Their metrics, events, logs and checkpoints go for good. A run whose checkpoint is promoted or pinned, or that has a fork, stays.", action: "Delete for good", danger: true });
    if (!sure) return;
    await each(runs, "Deleted", async (run) => {
      await del(path`/runs/${run.id}`);
      store().drop(run.id);
    });
  }

  async function labels(runs) {
    const common = runs[0].labels.filter((label) => runs.every((run) => run.labels.includes(label)));
    const one = runs.length === 1;
    const input = field(one ? "Labels" : "Labels that all of them have", h("input", { name: "labels", value: common.join(" "), spellcheck: "false", autocomplete: "off" }), {
      hint: "Separated by spaces. Letters, digits and _ . : / = - are allowed." + (one ? "" : " Labels that only some of them have stay."),
    });
    const given = await ask({
      title: one ? `Labels of ${runs[0].name}` : `Labels of ${runs.length} runs`, action: "Save", fields: [input],
      run: async (values) => {
        const wrong = words(values.labels).find((label) => !LABEL.test(label));
        if (wrong) throw new Problem(422, `“${wrong}” cannot be a label: it begins with a letter or digit and has at most 63 of the allowed characters.`);
      },
    });
    if (!given) return;
    const wanted = words(given.labels);
    await each(runs, "Changed the labels of", async (run) => {
      const kept = run.labels.filter((label) => !common.includes(label));
      const labels = [...new Set([...kept, ...wanted])].sort(); // the order of the server, so that no label moves under the pointer when its answer comes
      await patch(path`/runs/${run.id}`, { labels });
      store().put({ id: run.id, labels });
    });
  }

  return { node, update };
}

const words = (text) => text.split(/[\s,]+/).filter(Boolean);
