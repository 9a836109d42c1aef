// Starts the page that the shell names, and what every page has.
import { h } from "./dom.js";

const main = document.getElementById("main");
const script = document.querySelector("script[data-page]").dataset.page;

document.getElementById("theme")?.addEventListener("click", () => window.switchTheme());
document.getElementById("signout")?.addEventListener("click", async () => {
  await fetch("/signout", { method: "POST" });
  location.assign("/signin");
});
const account = document.getElementById("account");
document.addEventListener("click", (event) => {
  if (account?.open && !account.contains(event.target)) account.open = false;
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && account?.open) account.open = false;
});

try {
  await (await import(script)).page(main);
} catch (err) {
  console.error(err);
  main.append(
    h("div", { class: "notice bad", role: "alert" }, err.lines ? err.lines.join("\n") : `This page failed: ${err.message}`,
      h("div", { class: "row" }, h("button", { type: "button", onclick: () => location.reload() }, "Load it again"))),
  );
}
