// One question: its row in the list, and what opens below it. Foreign text only ever becomes text.
function make(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));
  return node;
}

const markOf = (cell) => document.getElementById("cell-marks").content.children[cell.colour].cloneNode(true);

const written = (value, decimals) => value === null ? "–" : value.toFixed(decimals).replace("-", "−");
const signedText = (value, decimals) => (value > 0 && Number(value.toFixed(decimals)) > 0 ? "+" : "") + written(value, decimals);
const duration = (seconds) => seconds < 9.995 ? `${seconds.toFixed(2)} s` : `${Math.round(seconds)} s`;

class ItemView {
  constructor(study, number) {
    this.study = study;
    this.number = number;
  }

  get anchor() { return this.study.items.anchor[this.number]; }

  row(cells) {
    const { study, number } = this;
    const { items } = study;
    const [kind, told] = study.strata[items.stratum[number]];
    const id = items.id[number], cluster = items.cluster[number];
    const summary = make("summary", {},
      make("span", { class: "question" }, items.question[number]),
      make("span", { class: "tags" },
        make("span", {}, id), cluster === id ? null : make("span", {}, cluster),
        make("span", { class: kind === "missed" ? "miss" : "hit" }, told)),
      make("span", { class: "chips" }, cells.map((cell) => this.chip(cell))));
    this.node = make("details", { class: "item", id: this.anchor }, summary);
    return this.node;
  }

  chip(place) {
    const { study, number } = this;
    const cell = study.cells[place];
    const scores = study.shown.map((measure) => {
      const value = study.score(measure, number, place);
      const { label, decimals } = study.measures[measure];
      return make("span", { class: `score is-${study.way(measure, number, place)}`, title: `${cell.label}, ${label}` },
        value === null ? "unscored" : written(value, decimals));
    });
    return make("span", { class: "chip" }, markOf(cell), make("span", { class: "hidden" }, `${cell.label}: `), scores);
  }

  // Fills the opened item; `cells` are places of cells, all of them when the reader asks.
  async open(cells) {
    const { study, number } = this;
    this.node.setAttribute("aria-busy", "true");
    const item = await unpackOne("items", study.starts.items, number);
    const passages = await Promise.all(item.passages.map(([text, score, gold]) =>
      unpackOne("passages", study.starts.passages, text).then(([document, words]) => ({ document, words: study.spell(words), score, gold }))));
    const rest = study.cells.length - cells.length;
    const all = make("button", { type: "button", class: "all" }, `Show all ${study.cells.length} answers`);
    all.addEventListener("click", () => this.open(study.cells.map((_, place) => place)));
    const body = make("div", { class: "body" },
      this.references(item),
      make("div", { class: "cells" }, cells.map((place) => this.answer(item, place, cells))),
      rest > 0 ? make("p", {}, all) : null,
      this.passages(passages),
      make("p", { class: "about" }, make("a", { href: `#${this.anchor}`, class: "self" }, "Link to this item")));
    this.node.querySelector(":scope > .body")?.remove();
    this.node.append(body);
    this.node.removeAttribute("aria-busy");
  }

  references(item) {
    return make("div", { class: "references" }, make("h3", {}, "References"),
      item.references.flatMap(([style, scored, wordings]) => wordings.map((wording) =>
        make("p", { class: "reference" }, `${this.study.spell(wording)} `, make("small", {}, scored ? `${style}, scored against` : style)))));
  }

  passages(found) {
    const gold = found.flatMap((passage, place) => passage.gold ? [place + 1] : []);
    const told = gold.length ? `gold at ${gold.join(", ")}` : "none gold";
    return make("details", { class: "passages" },
      make("summary", {}, `${found.length} retrieved passages, ${told}`),
      make("ol", {}, found.map(({ document, words, score, gold }) => make("li", { class: gold ? "gold" : null },
        gold ? make("strong", {}, "gold") : null, gold ? " " : null, `${words} `,
        make("small", {}, `${document} · ${written(score, 3)}`)))));
  }

  answer(item, place, cells) {
    const { study, number } = this;
    const cell = study.cells[place], given = item.answers[place];
    const card = make("article", { class: "cell" }, make("h3", {}, markOf(cell), cell.label));
    if (!given) {
      card.append(make("p", { class: "error" }, "No answer."));
      return card;
    }
    card.append(make("p", { class: "text" }, this.marked(item, place, cells)));
    const about = [given.same ? `same as ${study.cells[cell.against].label}` : null, given.cut ? "cut at the limit" : null,
      `${given.tokens} tokens`, duration(given.seconds)];
    card.append(make("p", { class: "about" }, about.filter(Boolean).join(" · ")));
    const broken = study.rules.filter((_, rule) => study.flag(number, place) & (1 << rule));
    if (broken.length) card.append(make("p", { class: "broken" }, broken.map((rule) => make("span", {}, rule.label))));
    if (given.error) card.append(make("p", { class: "error" }, given.error));
    card.append(...given.grades.map((grade) => this.grade(grade, place)));
    if (given.lexical.length) {
      card.append(make("p", { class: "about" }, given.lexical.map(([name, value]) => `${name} ${value}`).join(" · ")));
    }
    return card;
  }

  // The answer in words; of two answers side by side each marks what the other does not have.
  marked(item, place, cells) {
    const { text, empty } = item.answers[place];
    if (empty) return [make("em", {}, "(empty)")];
    let parts = text;
    if (cells.length === 2) {
      const other = cells.find((one) => this.study.cells[one].against === place);
      const theirs = other === undefined ? null : item.answers[other];
      parts = theirs?.marked ? theirs.text.filter((part) => part[0] !== "+") : text.filter((part) => part[0] !== "-");
    }
    return parts.flatMap((part, at) => {
      const words = this.study.spell(part.slice(1));
      const node = part[0] === "+" ? make("ins", {}, words) : part[0] === "-" ? make("del", {}, words) : words;
      return at ? [" ", node] : [node];
    });
  }

  grade([measure, spread, lost, rubric], place) {
    const { study, number } = this;
    const { name, label, decimals } = study.measures[measure];
    const value = study.score(measure, number, place), change = study.change(measure, number, place);
    const node = make("details", { class: "judged" }, make("summary", {},
      `${label} `, make("strong", {}, value === null ? "unscored" : written(value, decimals)),
      spread === null ? null : make("small", {}, ` ± ${written(spread, decimals)}`),
      change === null ? null : make("span", { class: `score is-${study.way(measure, number, place)}` }, signedText(change, decimals)),
      lost ? make("small", {}, ` ${lost} not readable`) : null));
    node.addEventListener("toggle", async () => {
      if (!node.open || node.querySelector("ol")) return;
      const reasons = await unpackOne("reasons", study.starts.reasons, number);
      node.append(make("ol", { class: "repeats", "aria-label": `The judge's readings, ${label}, ${rubric}` },
        reasons[place][name].map(([score, failure, seed, words]) => make("li", {},
          make("b", {}, score === null ? failure || "unscored" : String(score)), make("span", {}, study.spell(words)), make("small", {}, `seed ${seed}`)))));
    });
    return node;
  }
}
