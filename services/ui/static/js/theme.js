// Runs before the first paint, so that no page flashes in the wrong colours. A classic script: modules run later.
(() => {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const apply = () => {
    const dark = (localStorage.getItem("theme") ?? (system.matches ? "dark" : "light")) === "dark";
    document.documentElement.dataset.theme = dark ? "dark" : "light";
    window.dispatchEvent(new Event("themechange"));
  };
  system.addEventListener("change", apply);
  window.addEventListener("storage", apply);
  window.switchTheme = () => {
    localStorage.setItem("theme", document.documentElement.dataset.theme === "dark" ? "light" : "dark");
    apply();
  };
  apply();
})();
