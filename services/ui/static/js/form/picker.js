// Which recipe to start from, with what each of them takes on the hardware that is connected.
import { Problem, post } from "../api.js";
import { fill, h } from "../dom.js";
import { cost, duration } from "./cost.js";
import { number } from "../format.js";

/**
 * @param {{name: string, description: string, config: object}[]} recipes
 * @param {string} chosen name
 * @param {(name: string) => void} choose
 * @returns {{node: HTMLElement, figures: () => Promise<void>}} `figures` asks for what each takes, one after the other
 */
export function recipePicker(recipes, chosen, choose) {
  const sorted = [...recipes].sort((a, b) => a.config.model.depth - b.config.model.depth);
  const places = new Map(sorted.map(({ name }) => [name, h("span", { class: "recipe-figures dim" }, "…")]));
  const cards = sorted.map((recipe) =>
    h("label", { class: "recipe" },
      h("input", { type: "radio", name: "recipe", value: recipe.name, checked: recipe.name === chosen, onchange: () => choose(recipe.name) }),
      h("span", { class: "recipe-name" }, recipe.name), h("span", { class: "small recipe-about" }, recipe.description), places.get(recipe.name)));

  async function figures() {
    for (const [name, place] of places) {
      const text = await post("/runs/plan", { recipe: name }).then(words, (err) => {
        if (!(err instanceof Problem)) throw err;
        return "does not fit the hardware as it is";
      });
      fill(place, text);
    }
  }

  return { node: h("fieldset", { class: "recipes" }, h("legend", null, h("h2", null, "Recipe")), cards), figures };
}

function words({ figures }) {
  const takes = figures.hours === null ? "time and price unknown" : `${duration(figures)} · ${cost(figures)}`;
  return `${number(figures.params, 3)} parameters · ${takes}`;
}
