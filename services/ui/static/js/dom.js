// Elements from data. Every text becomes a text node, so markup in names, logs and answers is shown and never executed.

/**
 * @param {string} tag
 * @param {Record<string, any> | null} [props] attributes; `on…` is an event handler, `class` a string, `dataset` and `style` objects,
 *   false, null and undefined leave an attribute out, true sets it empty
 * @param {...any} children nodes, texts, numbers, lists of them; null, undefined and false are left out
 * @returns {HTMLElement}
 */
export function h(tag, props, ...children) {
  const node = document.createElement(tag);
  set(node, props ?? {});
  append(node, children);
  return node;
}

/** The same for SVG. */
export function svg(tag, props, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  set(node, props ?? {});
  append(node, children);
  return node;
}

export function set(node, props) {
  for (const [name, value] of Object.entries(props)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "dataset") Object.assign(node.dataset, value);
    else if (name === "style") Object.assign(node.style, value);
    else if (name === "value") node.value = value ?? "";
    else if (value === false || value === null || value === undefined) node.removeAttribute(name);
    else node.setAttribute(name, value === true ? "" : value);
  }
  return node;
}

function append(node, children) {
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== false) node.append(child);
  }
}

/** Replace what is in `node`. */
export function fill(node, ...children) {
  node.replaceChildren();
  append(node, children);
  return node;
}

/** Show `text` in `node` without touching the page when it already does. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/**
 * Show `items` as children of `parent` and keep the nodes of those that stay, with their focus and selection.
 * `update(node, item)` is called for every item, `create(item)` for new ones.
 */
export function keyed(parent, items, key, create, update) {
  const old = new Map([...parent.children].map((node) => [node.dataset.key, node]));
  let at = parent.firstElementChild;
  for (const item of items) {
    const id = String(key(item));
    let node = old.get(id);
    old.delete(id);
    if (!node) {
      node = create(item);
      node.dataset.key = id;
    }
    update?.(node, item);
    if (node === at) at = at.nextElementSibling;
    else parent.insertBefore(node, at);
  }
  for (const node of old.values()) node.remove();
}
