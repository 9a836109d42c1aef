// Values that Gradio sends to this page, by name. The page makes this module once, so whoever sends and whoever listens share it.
const values = new Map();
const listeners = new Map();

/** Called by a component of Gradio: its value is the one of `name`, now and whenever it changes. */
export function receive(name, props, watch) {
  const tell = () => {
    if (!props.value) return;
    values.set(name, props.value);
    listeners.get(name)?.(props.value);
  };
  watch("value", tell);
  tell();
}

/** `hear` is called with the newest value of `name`, also if it came before. */
export function listen(name, hear) {
  listeners.set(name, hear);
  if (values.has(name)) hear(values.get(name));
}
