// The head of a run's page: name, status in words, how far, how long, how much, and what can be done.
import { Problem, mayOperate, patch, path } from "../api.js";
import { fill, h, say } from "../dom.js";
import { DASH, FINISHED, between, chip, dollars, number, percent, seconds, time, tone } from "../format.js";
import { bar } from "../progress.js";
import { actions } from "./actions.js";
import { atWork, newest } from "./stages.js";

export function head(live) {
  const title = h("div", { class: "run-title" });
  const status = h("div", { class: "run-status row", role: "status" });
  const facts = h("dl", { class: "facts run-facts" });
  const about = h("div", { class: "run-about row" });
  const whole = h("div", { class: "run-whole" });
  const node = h("header", { class: "run-head" },
    h("div", { class: "run-first" }, title, actions(live)), h("div", { class: "run-second" }, status, facts), whole, about);
  const told = new Map(["done", "left", "cost", "speed", "time"].map((key) => [key, fact()]));
  facts.append(...[...told.values()].map((f) => f.node));
  let shown = "";

  function show(run) {
    document.title = `${run.name} · nanochat`;
    name(title, run, live);
    const words = reason(run, live.short);
    if (shown !== run.status + words) {
      shown = run.status + words;
      fill(status, chip(run.status), words && h("span", { class: `break ${run.status === "FAILED" ? "wrong" : "dim"}` }, words));
    }
    const { fraction: share, eta_s: left } = run;
    const over = FINISHED.has(run.status);
    told.get("done").say(percent(share), "of the run");
    told.get("left").node.hidden = over || !(left >= 1); // nobody waits for less
    told.get("left").say(`≈ ${seconds(left)}`, "left", "From the pace of the stage that is at work and the plan of the training to come. Stages whose length nobody knows yet are not in it.");
    const { used_usd: used, max_usd: most, used_gpu_hours: hours, max_hours: mostHours, used_hours: usedHours } = run.budget;
    told.get("cost").say(used === null ? DASH : dollars(used), most ? `of $${number(most)} budget` : "spent",
      used === null ? `The price of the GPU is unknown; ${number(hours, 3)} GPU hours used` : `${number(hours, 3)} GPU hours${mostHours ? `; ${number(usedHours, 3)} of ${number(mostHours)} h` : ""}`);
    const speed = newest(run, "tok_per_s");
    told.get("speed").node.hidden = !speed;
    told.get("speed").say(`${number(speed?.value, 3)}`, "tokens/s", speed && `${live.short(speed.stage.name)}, newest value`);
    told.get("time").say(run.started_at ? seconds(between(run.started_at, run.finished_at)) : DASH, over ? "took" : "so far");
    fill(whole, bar(share, tone(run.status), "Progress of the whole run"));
    belongs(about, run);
  }

  show(live.run);
  live.onRun(show);
  return node;
}

function fact() {
  const [name, value] = [h("dt"), h("dd")];
  const node = h("div", null, name, value);
  return {
    node,
    say: (text, what, why) => {
      say(value, text);
      say(name, what);
      if (why) node.title = why;
      else node.removeAttribute("title");
    },
  };
}

/** Why the run is as it is, in a sentence. */
function reason(run, short) {
  const bad = run.stages.find((s) => s.status === "FAILED") ?? run.stages.find((s) => s.status === "BACKOFF");
  if (bad) return `${short(bad.name)}: ${bad.message || bad.reason || "it failed"}`;
  if (FINISHED.has(run.status)) return run.status === "SUCCEEDED" ? "" : (run.stages.find((s) => s.status === "CANCELLED" && s.message)?.message ?? run.detail);
  const [busy] = atWork(run);
  if (busy) {
    const note = busy.progress?.note;
    return `${short(busy.name)}${note ? `: ${note}` : ""}`;
  }
  const paused = run.stages.find((s) => s.status === "PAUSED" && s.message);
  if (paused) return paused.message;
  return run.stages.find((s) => s.waiting)?.waiting.why ?? run.detail;
}

/** The name as heading; those who may can change it where it stands. */
function name(title, run, live) {
  if (title.querySelector("form")) return; // it is being changed
  if (!title.firstChild) {
    fill(title, h("h1", { class: "break" }, run.name),
      mayOperate() && h("button", { type: "button", class: "plain", "aria-label": "Rename this run", title: "Rename", onclick: () => rename(title, live) }, "✎"));
  }
  say(title.firstChild, run.name);
}

function rename(title, live) {
  const input = h("input", { name: "name", value: live.run.name, maxlength: 100, required: true, "aria-label": "Name of the run", autocomplete: "off", spellcheck: "false" });
  const wrong = h("p", { class: "wrong", role: "alert" });
  const back = () => {
    fill(title);
    name(title, live.run, live);
    title.querySelector("button").focus();
  };
  const form = h("form", { class: "row" }, input, h("button", { type: "submit", class: "primary" }, "Save"), h("button", { type: "button", onclick: back }, "Back"), wrong);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      await patch(path`/runs/${live.id}`, { name: input.value });
      await live.refresh();
      back();
    } catch (err) {
      if (!(err instanceof Problem)) throw err;
      say(wrong, err.lines.join("\n"));
    }
  });
  form.addEventListener("keydown", (event) => event.key === "Escape" && back());
  fill(title, form);
  input.select();
}

/** Where the run comes from, its labels and notes. */
function belongs(about, run) {
  const said = JSON.stringify([run.labels, run.notes, run.recipe, run.forked_from, run.sweep_id, run.archived_at]);
  if (about.dataset.said === said) return;
  about.dataset.said = said;
  const from = run.forked_from;
  fill(about,
    h("span", { class: "dim small" }, "recipe ", h("b", null, run.recipe), " · ", h("code", null, run.id), " · begun ", time(run.started_at ?? run.created_at)),
    from && h("a", { class: "small", href: path`/runs/${from}` }, "forked from another run"),
    run.sweep_id && h("a", { class: "small", href: path`/sweeps/${run.sweep_id}` }, "part of a sweep"),
    run.archived_at && h("span", { class: "tag" }, "archived"),
    run.labels.map((label) => h("a", { class: "tag", href: `/?label=${encodeURIComponent(label)}`, title: "All runs with this label" }, label)),
    run.notes && h("p", { class: "run-notes small break" }, run.notes));
}
