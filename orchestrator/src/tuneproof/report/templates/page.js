// Filters, order, search and theme. Without it the page shows everything, in the printed order.
"use strict";
(() => {
  const root = document.documentElement;
  const stored = () => { try { return localStorage.getItem("tuneproof-theme"); } catch { return null; } };
  const dark = () => root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  if (stored() === "dark" || stored() === "light") root.dataset.theme = stored();

  function theme() {
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
  }

  function answers() {
    const form = document.getElementById("filters");
    if (!form) return; // a load test's page has none
    const list = document.getElementById("items");
    const margins = JSON.parse(list.dataset.margins);
    const field = (id) => document.getElementById(id);
    const value = (id) => field(id)?.value ?? "";
    const items = [...list.children].map((node) => ({
      node,
      differences: JSON.parse(node.dataset.differences),
      order: Number(node.dataset.order),
      text: null,
    }));

    // The same rule as the counts in the verdicts: moved by more than the margin.
    const direction = (change, measure) => {
      if (change === null) return "unscored";
      if (Math.abs(change) <= (margins[measure] ?? 0) + 1e-9) return "same";
      return change < 0 ? "worse" : "better";
    };
    const changes = (item) => Object.entries(item.differences)
      .filter(([cell]) => !value("cell") || cell === value("cell"))
      .flatMap(([, measures]) => Object.entries(measures))
      .filter(([measure]) => !value("measure") || measure === value("measure"));
    const words = (item) => item.text ??= [...item.node.querySelectorAll("[data-text]")]
      .map((part) => part.textContent).join("\n").toLowerCase();

    function fits(item, wanted) {
      const { cluster, retrieval } = item.node.dataset;
      if (value("cluster") && cluster !== value("cluster")) return false;
      if (value("retrieval") && retrieval !== value("retrieval")) return false;
      const way = value("direction");
      if (way) {
        const ways = changes(item).map(([measure, change]) => direction(change, measure));
        const enough = way === "same" ? ways.every((one) => one === "same") : ways.includes(way);
        if (!enough) return false;
      }
      return wanted.every((word) => words(item).includes(word));
    }

    function apply() {
      const wanted = value("search").toLowerCase().split(/\s+/).filter(Boolean);
      const best = value("direction") === "better";
      let shown = 0;
      for (const item of items) {
        item.node.hidden = !fits(item, wanted);
        shown += item.node.hidden ? 0 : 1;
        const numbers = changes(item).map(([, change]) => change).filter((change) => change !== null);
        item.key = numbers.length ? (best ? -Math.max(...numbers) : Math.min(...numbers)) : Infinity;
      }
      const chosen = value("cell") || value("measure") || value("direction");
      const before = items.map((item) => item.order).join();
      items.sort((a, b) => (chosen && a.key !== b.key ? a.key - b.key : a.order - b.order));
      // Moving a node takes its focus away and costs a layout: only where the order is another.
      if (items.map((item) => item.order).join() !== before) list.append(...items.map((item) => item.node));
      field("shown").textContent = `${shown} of ${items.length} questions`;
      field("none").hidden = shown > 0;
      list.hidden = shown === 0;
    }

    function set(wishes) {
      for (const part of form.querySelectorAll("input, select")) part.value = wishes[part.id] ?? "";
      apply();
    }

    function open(id) {
      const node = document.getElementById(id);
      if (!node?.classList.contains("item")) return;
      if (node.hidden) set({});
      node.open = true;
      node.scrollIntoView();
      node.querySelector("summary").focus({ preventScroll: true });
    }

    form.hidden = false;
    form.addEventListener("input", apply);
    form.addEventListener("submit", (event) => event.preventDefault());
    field("clear").addEventListener("click", () => set({}));
    field("open-all").addEventListener("click", () => {
      const visible = items.filter((item) => !item.node.hidden);
      const some = visible.some((item) => !item.node.open);
      for (const item of visible) item.node.open = some;
    });
    document.addEventListener("click", (event) => {
      const link = event.target.closest("a[data-show]");
      if (link) set({ cell: link.dataset.cell, measure: link.dataset.measure, direction: link.dataset.direction });
      const dot = event.target.closest(".answer-dot");
      if (dot) location.hash = dot.dataset.item;
      const same = event.target.closest('a[href^="#item-"]');
      if (same && same.hash === location.hash) open(same.hash.slice(1));
    });
    document.addEventListener("keydown", (event) => {
      if (event.key !== "/" || event.target.closest("input, select, textarea")) return;
      event.preventDefault();
      field("search").focus();
    });
    addEventListener("hashchange", () => open(decodeURIComponent(location.hash.slice(1))));
    apply();
    if (location.hash) open(decodeURIComponent(location.hash.slice(1)));
  }

  document.addEventListener("DOMContentLoaded", () => { theme(); answers(); });
})();
