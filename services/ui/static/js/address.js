// The state of a page in its address, so that a reload, the way back and a shared link keep it.

/** Put a value into the page's URL; null takes it out. Back leads to the page before, not through every change. */
export function setParam(name, value) {
  const url = new URL(location.href);
  url.searchParams.delete(name);
  for (const one of [value].flat()) if (one !== null && one !== undefined && one !== "") url.searchParams.append(name, one);
  history.replaceState(history.state, "", url);
}

export const param = (name) => new URL(location.href).searchParams.get(name);
export const params = (name) => new URL(location.href).searchParams.getAll(name);

/** NAME of /runs/NAME. One that is cut short, such as %F, stays as it is. */
export function named() {
  const part = location.pathname.split("/")[2];
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}
