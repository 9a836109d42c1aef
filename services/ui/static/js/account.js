// The menu of the account. The listeners are the document's: on the chat's page Gradio makes the menu later than this runs.
const menu = () => document.getElementById("account");

document.addEventListener("click", async (event) => {
  if (event.target.closest("#theme")) window.switchTheme();
  if (event.target.closest("#signout")) {
    await fetch("/signout", { method: "POST" });
    location.assign("/signin");
  }
  if (menu()?.open && !menu().contains(event.target)) menu().open = false;
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && menu()?.open) menu().open = false;
});
