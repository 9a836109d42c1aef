// Dialogs, buttons that work, and fields: each shows what is wrong beside itself.
import { Problem } from "./api.js";
import { fill, h } from "./dom.js";

/**
 * Ask in a dialog. Resolves to the values of `fields` (by name), or to null if the visitor thinks better of it.
 * @param {{title: string, text?: string | string[], action: string, danger?: boolean, fields?: HTMLElement[], run?: (values: Record<string, string>) => Promise<any>}} question
 *   `run` is awaited while the dialog is open; its Problem is shown in the dialog
 */
export function ask({ title, text, action, danger = false, fields = [], run }) {
  return new Promise((resolve) => {
    const wrong = h("p", { class: "wrong", role: "alert", hidden: true });
    const go = h("button", { type: "submit", class: danger ? "danger" : "primary" }, action);
    const form = h(
      "form",
      { method: "dialog" },
      h("h2", { id: "ask-title" }, title),
      [text ?? []].flat().map((line) => h("p", { class: "dim break" }, line)),
      fields,
      wrong,
      h("div", { class: "actions" }, h("button", { type: "button", onclick: () => dialog.close() }, "Back"), go),
    );
    const dialog = h("dialog", { "aria-labelledby": "ask-title" }, form);
    let values = null;
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const given = Object.fromEntries(new FormData(form));
      wrong.hidden = true;
      go.setAttribute("aria-busy", "true");
      go.disabled = true;
      try {
        await run?.(given);
        values = given;
        dialog.close();
      } catch (err) {
        if (!(err instanceof Problem)) throw err;
        wrong.textContent = err.lines.join("\n");
        wrong.hidden = false;
      } finally {
        go.removeAttribute("aria-busy");
        go.disabled = false;
      }
    });
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(values);
    });
    (document.querySelector(".nc") ?? document.body).append(dialog); // where our styles hold on Gradio's page
    dialog.showModal();
  });
}

/** A button that runs `work` and shows its Problem in `place`, which stands beside it. */
export function act(label, work, { place, ...props } = {}) {
  const button = h("button", { type: "button", ...props }, label);
  button.addEventListener("click", async () => {
    button.setAttribute("aria-busy", "true");
    button.disabled = true;
    if (place) fill(place);
    try {
      await work(button);
    } catch (err) {
      if (!(err instanceof Problem)) throw err;
      if (place) fill(place, h("p", { class: "wrong", role: "alert" }, err.lines.join("\n")));
    } finally {
      button.removeAttribute("aria-busy");
      button.disabled = false;
    }
  });
  return button;
}

/** A field with its label, its hint and a place for what is wrong with it. */
export function field(label, input, { hint } = {}) {
  const id = (input.id ||= `f-${input.name || Math.random().toString(36).slice(2)}`);
  const wrong = h("p", { class: "wrong", id: `${id}-wrong`, role: "alert", hidden: true });
  const told = hint && h("p", { class: "hint", id: `${id}-hint` }, hint);
  input.setAttribute("aria-describedby", [told?.id, wrong.id].filter(Boolean).join(" "));
  const node = h("div", { class: "field" }, h("label", { for: id }, label), input, told, wrong);
  node.input = input;
  /** Show the text beside the field; without one, what was wrong is mended. */
  node.wrong = (text) => {
    wrong.textContent = text ?? "";
    wrong.hidden = !text;
    input.setAttribute("aria-invalid", String(Boolean(text)));
  };
  return node;
}
