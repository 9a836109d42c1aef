// The form of a new run.
import { absent } from "../absent.js";
import { Problem, get, mayOperate, patch, path, post } from "../api.js";
import { connection } from "../connection.js";
import { fill, h } from "../dom.js";
import { Changes, difference } from "../form/changes.js";
import { recipeFields } from "../form/fields.js";
import { changeList } from "../form/list.js";
import { recipePicker } from "../form/picker.js";
import { planPanel } from "../form/plan.js";
import { groupsOf } from "../form/schema.js";
import { terms } from "../form/terms.js";
import { param, setParam } from "../address.js";

const QUICKEST = "tiny";
const DRAFT = "nanochat.new"; // what was filled in when the session ended

export async function page(main) {
  const origin = param("from");
  const [{ items: recipes }, schema, catalog, old] = await Promise.all([
    get("/recipes"), get("/recipes/schema"), get("/catalog"),
    origin ? get(path`/runs/${origin}`).catch(absentee) : null,
  ]);
  if (old instanceof Problem) {
    return main.append(absent("No such run to clone", `There is no run “${origin.slice(0, 100)}” in this project. It may have been deleted, or belong to another project.`, ["/new", "New run"]));
  }
  const disabled = !mayOperate();
  const changes = new Changes();
  const groups = groupsOf(schema);
  const start = begin(recipes, old, new Set(groups.flatMap((group) => group.fields.map((field) => field.path))));
  const draft = taken();
  let recipe = start.recipe; // a name, or a whole recipe for a run whose recipe does not ship
  let plan = null;
  let sent = { text: "", key: "" };

  const top = h("div", { role: "alert" });
  const fields = recipeFields(groups, changes, { disabled });
  const about = terms({ ...start.terms, ...draft?.terms }, { disabled });
  const planned = planPanel({
    titles: new Map(catalog.stages.map((stage) => [stage.name, stage.short || stage.title])),
    request: () => (changes.broken.size ? null : { recipe, overrides: changes.overrides }),
    told({ plan: now, errors }) {
      plan = now;
      tellOthers(fields.complain(errors));
    },
  });
  const picker = typeof recipe === "string" ? recipePicker(recipes, recipe, choose) : null;
  const go = h("button", { type: "submit", class: "primary", disabled }, "Start the run");
  const outcome = h("div", { role: "alert" });
  const form = h("form", { class: "aside new-run", novalidate: true },
    h("div", { class: "stack" }, picker?.node, top, fields.node),
    h("div", { class: "stack new-run-side" }, planned.node, changeList(changes, { disabled }), about.node, outcome,
      disabled ? h("p", { class: "notice" }, `Your key has the role ${document.documentElement.dataset.role}: it may look at plans but not start runs. Ask an operator or an admin.`) : go));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
  changes.addEventListener("change", () => {
    fill(outcome);
    planned.ask();
  });
  main.append(
    h("div", { class: "page-head" }, h("h1", { class: "break" }, old ? `Clone of ${old.name}` : "New run"), old && h("a", { href: `/runs/${old.id}` }, "the original")),
    form,
  );
  changes.start(start.config, draft ? new Map(draft.values) : start.values);
  connection.addEventListener("ended", () => sessionStorage.setItem(DRAFT, JSON.stringify({ at: here(), values: [...changes.values], terms: about.written() })));
  await planned.asked();
  await picker?.figures();

  function choose(name) {
    recipe = name;
    setParam("recipe", name);
    changes.start(recipes.find((one) => one.name === name).config);
  }

  function tellOthers(errors) {
    fill(top, errors.length > 0 && h("div", { class: "notice bad" }, errors.map(({ field, message }) => h("p", null, h("code", null, field), ` ${message}`))));
  }

  async function submit() {
    if (go.disabled) return;
    const given = about.read();
    if (!given) return;
    go.disabled = true;
    go.setAttribute("aria-busy", "true");
    fill(outcome);
    let run = null;
    try {
      await planned.asked();
      if (!plan) return fill(outcome, h("p", { class: "wrong" }, "The run was not started: see what is marked above."));
      const body = { recipe, overrides: changes.overrides, plan: plan.hash, ...given.body };
      const text = JSON.stringify(body);
      if (sent.text !== text) sent = { text, key: randomKey() };
      run = await post("/runs", body, { headers: { "Idempotency-Key": sent.key } });
      if (given.labels.length) await patch(path`/runs/${run.id}`, { labels: given.labels });
      location.assign(`/runs/${run.id}`);
      await new Promise(() => {}); // the page is about to go, with its button disabled
    } catch (err) {
      if (!(err instanceof Problem)) throw err;
      if (run) labelless(run, err);
      else refused(err);
    } finally {
      go.disabled = false;
      go.removeAttribute("aria-busy");
    }
  }

  function labelless(run, err) {
    fill(outcome, h("p", { class: "wrong" }, `The run was started, but without its labels: ${err.lines.join("\n")} `, h("a", { href: path`/runs/${run.id}` }, "Go to the run")));
  }

  function refused(err) {
    const others = fields.complain(about.complain(err.errors));
    tellOthers(others);
    if (err.status === 409) planned.ask();
    fill(outcome, h("p", { class: "wrong" }, err.status === 409 ? `${err.message} Look at the new plan, then start the run.` : err.errors.length ? "The run was not started: see what is marked." : err.message));
  }
}

function absentee(err) {
  if (err.missing || err.status === 409) return err;
  throw err;
}

/** What the form begins with: a shipped recipe, or the recipe and the changes of an old run. */
function begin(recipes, old, fields) {
  const named = (name) => recipes.find((one) => one.name === name);
  if (!old) {
    const recipe = named(param("recipe")) ?? named(QUICKEST) ?? recipes[0];
    return { recipe: recipe.name, config: recipe.config, values: new Map(), terms: {} };
  }
  const known = { name: old.name, labels: old.labels, priority: old.priority, max_usd: old.budget.max_usd, max_hours: old.budget.max_hours };
  const recipe = named(old.recipe);
  if (recipe) return { recipe: recipe.name, config: recipe.config, values: difference(recipe.config, old.config, fields), terms: known };
  const config = Object.fromEntries(Object.entries(old.config).filter(([, value]) => value !== null));
  return { recipe: config, config, values: new Map(), terms: known };
}

const here = () => location.pathname + location.search;

/** What was filled in at this address before the visitor had to sign in again; it is given once. */
function taken() {
  const draft = JSON.parse(sessionStorage.getItem(DRAFT));
  sessionStorage.removeItem(DRAFT);
  return draft?.at === here() ? draft : null;
}

/** crypto.randomUUID is not there on plain HTTP. */
const randomKey = () => [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
