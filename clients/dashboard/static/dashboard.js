// Theme and keyboard. Everything else is the server's.
(() => {
  "use strict";
  const THEMES = ["system", "light", "dark"];
  const KEY = "bilevel-theme";
  const wants = () => (THEMES.includes(localStorage.getItem(KEY)) ? localStorage.getItem(KEY) : "system");

  function apply() {
    const theme = wants();
    document.documentElement.dataset.theme = theme;
    globalThis.Quasar?.Dark?.set(theme === "system" ? "auto" : theme === "dark");
    for (const button of document.querySelectorAll("[data-theme-toggle]")) {
      button.setAttribute("aria-label", `Theme: ${theme}`);
      button.title = `Theme: ${theme}`;
    }
  }

  apply(); // in the head, before anything is drawn
  window.addEventListener("load", () => setTimeout(apply, 0));
  window.addEventListener("storage", apply);

  document.addEventListener("click", (event) => {
    if (!event.target.closest?.("[data-theme-toggle]")) return;
    localStorage.setItem(KEY, THEMES[(THEMES.indexOf(wants()) + 1) % THEMES.length]);
    apply();
  });

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    const typing = event.target.closest?.("input, textarea, select, [contenteditable]");
    if (typing || document.querySelector(".q-dialog")) return;
    const all = [...document.querySelectorAll(`[aria-keyshortcuts="${CSS.escape(event.key)}"]`)];
    const meant = all.find((element) => element.ariaDisabled !== "true") ?? all[0];
    if (!meant) return;
    event.preventDefault();
    if (meant.matches("input, textarea")) meant.focus();
    else meant.click();
  });
})();
