// The menu of the account.
import "./menus.js";

document.addEventListener("click", async ({ target }) => {
  if (target.closest("#theme")) window.switchTheme();
  if (target.closest("#signout")) {
    await fetch("/signout", { method: "POST" });
    location.assign("/signin");
  }
});
