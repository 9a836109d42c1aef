// The list of conversations: open, rename, export, delete.
import { h, keyed } from "../dom.js";
import { download } from "../download.js";
import { ask } from "../controls.js";
import { asJson, asMarkdown, fileName } from "./transfer.js";

export class Sidebar {
  /** @param {{open: (id: string) => void, begin: () => void, renamed: () => void, removed: (id: string) => void}} acts */
  constructor(store, acts) {
    this.store = store;
    this.acts = acts;
    this.list = h("ul", { class: "conversations" });
    this.none = h("p", { class: "dim small" }, "Conversations are kept in this browser.");
    this.node = h("nav", { class: "sidebar", "aria-label": "Conversations" }, h("button", { type: "button", id: "new-chat", onclick: () => acts.begin() }, "+ New chat"), this.list, this.none);
  }

  show(current) {
    const items = this.store.list();
    this.none.hidden = items.length > 0;
    keyed(this.list, items, (one) => one.id, (one) => this.#make(one.id), (node, one) => {
      const open = node.firstChild;
      if (open.textContent !== one.name) open.textContent = one.name;
      node.querySelector("summary").setAttribute("aria-label", `Actions for ${one.name}`);
      if (one.id === current) open.setAttribute("aria-current", "true");
      else open.removeAttribute("aria-current");
    });
  }

  #make(id) {
    const act = (label, work) => h("button", { type: "button", class: "plain", onclick: work }, label);
    const menu = h("details", { class: "menu" }, h("summary", null, "⋯"), h("div", { class: "menu-items" },
      act("Rename", () => this.#rename(id)),
      act("Export as Markdown", () => this.#export(id, asMarkdown, "md", "text/markdown")),
      act("Export as JSON", () => this.#export(id, asJson, "json", "application/json")),
      act("Delete", () => this.#remove(id))));
    return h("li", null, h("button", { type: "button", class: "plain open", onclick: () => this.acts.open(id) }), menu);
  }

  async #rename(id) {
    const name = this.store.load(id)?.name ?? "";
    const input = h("input", { name: "name", value: name, required: true, maxlength: "80", "aria-label": "Name" });
    const given = await ask({ title: "Rename the conversation", action: "Rename", fields: [input] });
    if (!given?.name.trim()) return;
    this.store.rename(id, given.name.trim());
    this.acts.renamed(id, given.name.trim());
  }

  #export(id, form, ending, type) {
    const conversation = this.store.load(id);
    if (conversation) download(fileName(conversation, ending), form(conversation), type);
  }

  async #remove(id) {
    const name = this.store.load(id)?.name ?? "this conversation";
    const sure = await ask({ title: "Delete the conversation?", text: `“${name}” is kept in this browser only, so it is gone for good.`, action: "Delete", danger: true });
    if (!sure) return;
    this.store.remove(id);
    this.acts.removed(id);
  }
}
