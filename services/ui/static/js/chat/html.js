// The only place of the chat that makes elements of HTML. The server made it of an answer's Markdown and let no tag of the model
// through (services/ui/chat/markdown.py); what is not in these lists is left out here once more.
const TAGS = new Set("P H1 H2 H3 H4 H5 H6 UL OL LI PRE CODE EM STRONG S BLOCKQUOTE TABLE THEAD TBODY TR TH TD A BR HR".split(" "));
const ATTRIBUTES = new Set(["href", "start"]);
const LINK = /^(https?:|mailto:)/i;

/** @returns {Node[]} */
export function nodesOf(html) {
  return [...new DOMParser().parseFromString(html, "text/html").body.childNodes].map(clean);
}

function clean(node) {
  if (node.nodeType === Node.TEXT_NODE) return document.createTextNode(node.data);
  if (!TAGS.has(node.nodeName)) return document.createTextNode(node.textContent ?? "");
  const made = document.createElement(node.nodeName);
  for (const { name, value } of node.attributes) if (ATTRIBUTES.has(name) && (name !== "href" || LINK.test(value))) made.setAttribute(name, value);
  if (made.nodeName === "A") Object.assign(made, { target: "_blank", rel: "noopener noreferrer nofollow" });
  made.append(...[...node.childNodes].map(clean));
  return made;
}
