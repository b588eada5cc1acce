// Light or dark: the system's scheme, or the reader's choice.
"use strict";
(() => {
  const root = document.documentElement;
  const stored = () => { try { return localStorage.getItem("tuneproof-theme"); } catch { return null; } };
  const dark = () => root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  if (stored() === "dark" || stored() === "light") root.dataset.theme = stored();

  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const say = () => button.setAttribute("aria-pressed", String(dark()));
    button.hidden = false;
    say();
    button.addEventListener("click", () => {
      root.dataset.theme = dark() ? "light" : "dark";
      // A page opened from a file may have no storage; the choice then lasts as long as the page.
      try { localStorage.setItem("tuneproof-theme", root.dataset.theme); } catch { /* see above */ }
      say();
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", say);
  });
})();
