// Menus (details.menu) close after a choice, with Escape, and with a click elsewhere. The listeners are the document's: on the
// chat's page Gradio makes a menu later than this runs.
const opened = () => document.querySelectorAll("details.menu[open]");

document.addEventListener("click", ({ target }) => {
  for (const menu of opened()) if (!menu.contains(target) || target.closest(".menu-items button")) menu.open = false;
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") for (const menu of opened()) menu.open = false;
});
