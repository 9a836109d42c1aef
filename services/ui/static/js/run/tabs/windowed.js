// A list of any length of which only what is seen is in the page.
import { fill, h } from "../../dom.js";

const BEYOND = 20; // rows beyond each edge

/**
 * @param {{row: number, render: (item: any, index: number) => HTMLElement, label: string, moved?: (atEnd: boolean) => void}} options
 *   `row` is the height of one in pixels; `moved` is called when the visitor scrolls
 * @returns {{node: HTMLElement, show: (items: any[]) => void, toEnd: () => void, close: () => void}}
 */
export function windowed({ row, render, label, moved }) {
  let items = [];
  let first = -1;
  let last = -1;
  let waiting = 0;
  const rows = h("div", { class: "window-rows" });
  const size = h("div", { class: "window-size" }, rows);
  const node = h("div", { class: "window", role: "log", "aria-live": "off", "aria-label": label, tabindex: "0" }, size);

  function draw(anew) {
    waiting = 0;
    const from = Math.max(0, Math.floor(node.scrollTop / row) - BEYOND);
    const to = Math.min(items.length, Math.ceil((node.scrollTop + node.clientHeight) / row) + BEYOND);
    if (!anew && from === first && to === last) return;
    [first, last] = [from, to];
    rows.style.transform = `translateY(${from * row}px)`;
    fill(rows, items.slice(from, to).map((item, i) => render(item, from + i)));
  }

  const atEnd = () => node.scrollTop + node.clientHeight >= size.offsetHeight - row;
  node.addEventListener("scroll", () => {
    waiting ||= requestAnimationFrame(() => draw(false));
    moved?.(atEnd());
  }, { passive: true });
  const resized = new ResizeObserver(() => draw(false));
  resized.observe(node);

  return {
    node,
    show(found) {
      items = found;
      size.style.height = `${items.length * row}px`;
      draw(true);
    },
    toEnd() {
      node.scrollTop = size.offsetHeight;
      draw(false);
    },
    close() {
      cancelAnimationFrame(waiting);
      resized.disconnect();
    },
  };
}
