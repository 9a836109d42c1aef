// Hands on a chart: keys, wheel, a drag with Shift, one finger to move and two to zoom. A plain drag chooses a range (uPlot).

const STEP = 0.2; // of what is seen, by an arrow key
const ZOOM = 0.7;

/** Returns a function that lets go. `plot()` is uPlot, or null while there is none. */
export function steer(node, plot, range) {
  const stop = new AbortController();
  const on = (event, take, options) => node.addEventListener(event, take, { signal: stop.signal, ...options });
  const width = () => plot()?.over.clientWidth || 1;
  const share = (event) => (event.clientX - plot().over.getBoundingClientRect().left) / width();
  const fingers = new Map();

  on("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const act = {
      "+": () => range.zoom(ZOOM), "=": () => range.zoom(ZOOM), "-": () => range.zoom(1 / ZOOM), 0: () => range.reset(), Escape: () => range.reset(),
      ArrowLeft: () => range.move(-STEP), ArrowRight: () => range.move(STEP), Home: () => range.move(-1e9), End: () => range.move(1e9),
    }[event.key];
    if (!act || !range.isZoomed && ["Home", "End", "Escape"].includes(event.key)) return;
    event.preventDefault();
    act();
  });

  // The wheel alone scrolls the page. With Ctrl (which a pinch on a touch pad sends too) it zooms, sideways it moves.
  on("wheel", (event) => {
    if (!plot()) return;
    if (event.ctrlKey || event.metaKey) range.zoom(Math.exp(event.deltaY * 0.01), share(event));
    else if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) range.move((event.deltaX || event.deltaY) / width());
    else return;
    event.preventDefault();
  }, { passive: false });

  on("mousedown", (event) => event.shiftKey && event.stopPropagation(), { capture: true }); // no range is chosen while it moves
  on("pointerdown", (event) => {
    if (event.pointerType === "mouse" && !event.shiftKey) return;
    fingers.set(event.pointerId, event.clientX);
    range.hold();
    node.setPointerCapture(event.pointerId);
  });
  on("pointermove", (event) => {
    if (!fingers.has(event.pointerId)) return;
    const before = [...fingers.values()];
    fingers.set(event.pointerId, event.clientX);
    const after = [...fingers.values()];
    if (after.length === 1) range.move((before[0] - after[0]) / width());
    else {
      const [was, is] = [Math.abs(before[0] - before[1]), Math.abs(after[0] - after[1])];
      if (was > 8 && is > 8) range.zoom(was / is, ((after[0] + after[1]) / 2 - plot().over.getBoundingClientRect().left) / width());
    }
  });
  for (const end of ["pointerup", "pointercancel"]) on(end, (event) => fingers.delete(event.pointerId) && range.release());
  return () => {
    stop.abort();
    for (const _ of fingers) range.release();
  };
}
