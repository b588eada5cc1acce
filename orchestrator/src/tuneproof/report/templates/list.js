// The list of questions: filters, order, search and keys. Rows are made when they are to be seen.
const ROWS = 50;
const DIFFERENT = 1 << 15;
const FIRST_CODE = 0x3400;
const WAYS = { w: "worse", b: "better", s: "same", u: "unscored", "-": "same" };

class Study {
  constructor(index) {
    Object.assign(this, index);
    this.compared = this.cells.flatMap((cell, place) => cell.against < 0 ? [] : [place]);
    this.clusters = new Set(this.items.cluster);
    this.places = new Map(this.items.anchor.map((anchor, number) => [anchor, number]));
  }

  // A packed text: after "~" each character of a block stands for a word, after "=" it is plain.
  spell(text) {
    if (text[0] === "=") return text.slice(1);
    const { words } = this;
    let spelt = "";
    for (let at = 1; at < text.length; at++) {
      const code = text.charCodeAt(at) - FIRST_CODE;
      spelt += code >= 0 && code < words.length ? ` ${words[code]}` : text[at];
    }
    return spelt.slice(1);
  }

  get size() { return this.items.id.length; }
  at(number, place) { return number * this.cells.length + place; }
  score(measure, number, place) { return this.scores[measure][this.at(number, place)]; }
  flag(number, place) { return this.flags[this.at(number, place)]; }
  way(measure, number, place) { return WAYS[this.ways[measure][this.at(number, place)]]; }

  change(measure, number, place) {
    const { against } = this.cells[place];
    if (against < 0) return null;
    const mine = this.score(measure, number, place), other = this.score(measure, number, against);
    return mine === null || other === null ? null : mine - other;
  }

  // The cell to show beside the baseline where none is chosen: the one that loses most.
  worst(number) {
    const loss = (place) => Math.min(...this.primary.map((measure) => this.change(measure, number, place) ?? 0), 0);
    return this.compared.reduce((best, place) => loss(place) < loss(best) ? place : best, this.compared[0]);
  }
}

class List {
  constructor(study) {
    this.study = study;
    this.form = document.getElementById("filters");
    this.list = document.getElementById("items");
    this.show = "";
    this.views = new Map();
    this.texts = null;
    this.from = 0;
    this.to = ROWS;
  }

  value(id) { return document.getElementById(id)?.value ?? ""; }

  start() {
    const { form } = this;
    form.hidden = false;
    form.addEventListener("input", () => { this.readTexts(); this.apply(); });
    form.addEventListener("submit", (event) => event.preventDefault());
    for (const button of form.querySelectorAll("[data-way]")) {
      button.addEventListener("click", () => {
        this.show = button.dataset.way;
        if (this.show !== "failed") document.getElementById("rule").value = "";
        this.apply();
      });
    }
    document.getElementById("clear").addEventListener("click", () => this.set({}));
    document.getElementById("later").addEventListener("click", () => this.extend(0, ROWS));
    document.getElementById("earlier").addEventListener("click", () => this.extend(ROWS, 0));
    document.getElementById("cluster").addEventListener("focus", () => this.nameClusters(), { once: true });
    document.addEventListener("click", (event) => this.click(event));
    document.addEventListener("keydown", (event) => this.key(event));
    addEventListener("hashchange", () => this.goTo(location.hash));
    this.apply();
    this.goTo(location.hash);
    document.documentElement.dataset.ready = "";
  }

  nameClusters() {
    const names = [...this.study.clusters].sort();
    document.getElementById("clusters").append(...names.map((name) => make("option", { value: name })));
  }

  set(wishes) {
    for (const part of this.form.querySelectorAll("input, select")) part.value = wishes[part.id] ?? "";
    this.show = wishes.show ?? "";
    this.apply();
  }

  // Places of the cells and measures that the filters speak of.
  scope() {
    const { study } = this;
    const cell = this.value("cell"), measure = this.value("measure");
    const every = study.compared.length ? study.compared : study.cells.map((_, place) => place);
    return {
      cells: cell === "" ? every : [Number(cell)],
      measures: measure === "" ? study.primary : [Number(measure)],
    };
  }

  fits(number, { cells, measures }) {
    const { study } = this;
    const moved = (way) => cells.some((place) => measures.some((measure) => study.ways[measure][study.at(number, place)] === way));
    const rule = this.value("rule");
    const bits = rule === "" ? DIFFERENT - 1 : 1 << Number(rule);
    return {
      "": true,
      different: cells.some((place) => study.flag(number, place) & DIFFERENT),
      failed: cells.some((place) => study.flag(number, place) & bits),
      worse: moved("w"),
      better: moved("b"),
      unscored: moved("u"),
    };
  }

  apply() {
    const { study } = this;
    const wanted = this.value("search").toLowerCase().split(/\s+/).filter(Boolean);
    const cluster = this.value("cluster"), stratum = this.value("stratum"), rule = this.value("rule");
    const scope = this.scope();
    // A whole name means that cluster alone; a part of one, all that hold it.
    const inCluster = study.clusters.has(cluster) ? (name) => name === cluster : (name) => name.includes(cluster);
    const counts = {}, found = [];
    if (rule !== "" && this.show === "") this.show = "failed";
    for (let number = 0; number < study.size; number++) {
      if (cluster && !inCluster(study.items.cluster[number])) continue;
      if (stratum && study.strata[study.items.stratum[number]][0] !== stratum) continue;
      if (wanted.length && !wanted.every((word) => this.words(number).includes(word))) continue;
      const fits = this.fits(number, scope);
      for (const way of Object.keys(fits)) if (fits[way]) counts[way] = (counts[way] ?? 0) + 1;
      if (fits[this.show]) found.push(number);
    }
    this.order = this.sorted(found, scope);
    for (const button of this.form.querySelectorAll("[data-way]")) {
      button.setAttribute("aria-pressed", String(button.dataset.way === this.show));
      button.querySelector("span").textContent = (counts[button.dataset.way] ?? 0).toLocaleString("en");
    }
    const searching = wanted.length && !this.textsReady ? " so far; reading all texts" : "";
    const [shown, size] = [found.length.toLocaleString("en"), study.size.toLocaleString("en")];
    document.getElementById("shown").textContent = `${shown} of ${size} questions${searching}`;
    document.getElementById("none").hidden = found.length > 0;
    this.list.hidden = found.length === 0;
    this.from = 0;
    this.to = ROWS;
    this.views.clear();
    this.draw();
  }

  // Largest losses first; where gains are wanted, the largest gain.
  sorted(found, { cells, measures }) {
    const { study } = this;
    if (this.value("cell") === "" && this.value("measure") === "" && !["worse", "better"].includes(this.show)) return found;
    const best = this.show === "better";
    const keys = new Map(found.map((number) => {
      const changes = cells.flatMap((place) => measures.map((measure) => study.change(measure, number, place))).filter((one) => one !== null);
      return [number, changes.length ? (best ? -Math.max(...changes) : Math.min(...changes)) : Infinity];
    }));
    return found.sort((a, b) => keys.get(a) - keys.get(b) || a - b);
  }

  // The cells of a row, and of what opens below it.
  cellsOf(number) {
    const { study } = this;
    const chosen = this.value("cell");
    if (chosen === "" && study.cells.length <= 3) return study.cells.map((_, place) => place);
    const place = chosen === "" ? study.worst(number) : Number(chosen);
    if (place === undefined) return [0];
    const { against } = study.cells[place];
    return against < 0 ? [place] : [against, place];
  }

  draw() {
    const rows = this.order.slice(this.from, this.to).map((number) => this.view(number).node);
    this.list.replaceChildren(...rows);
    const [earlier, later] = [this.from, this.order.length - this.to];
    const say = (id, count, words) => {
      const button = document.getElementById(id);
      button.hidden = count <= 0;
      button.textContent = `Show ${Math.min(count, ROWS)} ${words}, of ${count.toLocaleString("en")}`;
    };
    say("earlier", earlier, "before these");
    say("later", later, "more");
  }

  extend(before, after) {
    const focus = before ? this.from - 1 : this.to;
    this.from = Math.max(0, this.from - before);
    this.to = Math.min(this.order.length, this.to + after);
    this.draw();
    this.list.querySelector(`#${CSS.escape(this.study.items.anchor[this.order[focus]])} > summary`)?.focus({ preventScroll: true });
  }

  view(number) {
    let view = this.views.get(number);
    if (!view) {
      view = new ItemView(this.study, number);
      const cells = this.cellsOf(number);
      view.row(this.study.cells.length <= 4 && this.value("cell") === "" ? this.study.cells.map((_, place) => place) : cells);
      view.node.addEventListener("toggle", () => {
        if (view.node.open && !view.node.querySelector(":scope > .body")) view.open(cells);
      });
      this.views.set(number, view);
    }
    return view;
  }

  // Opens the item of an address, whatever the filters hide.
  goTo(hash) {
    const number = this.study.places.get(decodeURIComponent(hash.slice(1)));
    if (number === undefined) return;
    if (!this.order.includes(number)) this.set({});
    this.openAt(this.order.indexOf(number));
  }

  openAt(position) {
    if (position < this.from || position >= this.to) {
      this.from = Math.max(0, position - 5);
      this.to = this.from + ROWS;
      this.draw();
    }
    const { node } = this.view(this.order[position]);
    node.open = true;
    node.scrollIntoView();
    node.querySelector("summary").focus({ preventScroll: true });
  }

  // The next or the previous question: it opens, and the one that is left closes.
  step(by) {
    if (!this.order.length) return;
    const here = document.activeElement?.closest(".item") ?? this.list.querySelector(".item[open]");
    const position = here ? this.order.indexOf(this.study.places.get(here.id)) + by : 0;
    if (position < 0 || position >= this.order.length) return;
    if (here) here.open = false;
    this.openAt(position);
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea")) return;
    if (event.key === "/") {
      event.preventDefault();
      document.getElementById("search").focus();
    } else if (event.key === "j" || event.key === "k") {
      this.step(event.key === "j" ? 1 : -1);
    }
  }

  click(event) {
    const link = event.target.closest("a[data-show]");
    if (link) {
      const { cell, measure, rule, show } = link.dataset;
      this.set({ cell, measure, rule, show });
    }
    const dot = event.target.closest(".answer-dot");
    if (dot) location.hash = dot.dataset.item;
    const same = event.target.closest('a[href^="#item-"]');
    if (same && same.hash === location.hash) this.goTo(same.hash);
  }

  words(number) {
    const { id, question, cluster } = this.study.items;
    return this.texts?.[number] ?? `${id[number]}\n${cluster[number]}\n${question[number]}`.toLowerCase();
  }

  // For the search: references, answers and passages of every item, once.
  async readTexts() {
    if (this.texts || this.value("search") === "") return;
    this.texts = [];
    const { study } = this;
    const { id, question, cluster } = study.items;
    const passages = [];
    for (const part of study.starts.passages.keys()) {
      for (const [document, words] of await unpack(`passages-${part}`)) passages.push(`${document}\n${study.spell(words)}`);
    }
    for (const part of study.starts.items.keys()) {
      for (const item of await unpack(`items-${part}`)) {
        const number = this.texts.length;
        this.texts.push([id[number], cluster[number], question[number],
          ...item.references.flatMap(([, , wordings]) => wordings.map((one) => study.spell(one))),
          ...item.passages.map(([text]) => passages[text]),
          ...item.answers.flatMap((answer) => answer ? [answer.text.filter((one) => one[0] !== "-").map((one) => study.spell(one.slice(1))).join(" ")] : []),
        ].join("\n").toLowerCase());
      }
    }
    this.textsReady = true;
    this.apply();
    this.form.dataset.searched = "";
  }
}

document.addEventListener("DOMContentLoaded", async () => {
  new List(new Study(await unpack("index"))).start();
});
