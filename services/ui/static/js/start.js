// Starts the page that the shell names, and what every page has.
import "./account.js";
import { connection } from "./connection.js";
import { h } from "./dom.js";

const main = document.getElementById("main");
const script = document.querySelector("script[data-page]").dataset.page;

try {
  await (await import(script)).page(main);
} catch (err) {
  console.error(err);
  connection.addEventListener("found", () => location.reload()); // nothing is shown yet that a reload could lose
  main.append(
    h("div", { class: "notice bad", role: "alert" }, err.lines ? err.lines.join("\n") : `This page failed: ${err.message}`,
      h("div", { class: "row" }, h("button", { type: "button", onclick: () => location.reload() }, "Load it again"))),
  );
}
