// Menus (details.menu) close after a choice, with Escape, and with a click elsewhere. The listeners are the document's: on the
// chat's page Gradio makes a menu later than this runs.
const opened = () => document.querySelectorAll("details.menu[open]");

/** The focus goes back to the button of the menu: what has it is hidden now. */
function close(menu) {
  if (menu.contains(document.activeElement)) menu.querySelector("summary").focus();
  menu.open = false;
}

// Before the choice is carried out: a dialog that it opens gives the focus back to what had it.
document.addEventListener("click", ({ target }) => {
  for (const menu of opened()) if (!menu.contains(target) || target.closest(".menu-items button")) close(menu);
}, true);
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") for (const menu of opened()) close(menu);
});
