// Bring what is shown up to date and keep its nodes, so that focus, selected text and moving bars stay.

/**
 * Make the attributes and children of `old` those of `next`, where they differ. `next` is used up. Handlers that were added to
 * the nodes of `old` stay as they were: give a handler what it needs through the DOM or through a map, not by its closure.
 */
export function morph(old, next) {
  for (const { name } of [...old.attributes]) if (!next.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of [...next.attributes]) {
    if (old.getAttribute(name) === value) continue;
    if (name === "style") old.style.cssText = next.style.cssText; // the policy of the page refuses the attribute
    else old.setAttribute(name, value);
  }
  const parts = [...next.childNodes];
  [...old.childNodes].slice(parts.length).forEach((node) => node.remove());
  parts.forEach((part, i) => {
    const there = old.childNodes[i];
    if (!there) old.append(part);
    else if (there.nodeType === Node.TEXT_NODE && part.nodeType === Node.TEXT_NODE) {
      if (there.data !== part.data) there.data = part.data;
    } else if (there.nodeName === part.nodeName && there.nodeType === Node.ELEMENT_NODE) morph(there, part);
    else there.replaceWith(part);
  });
}
