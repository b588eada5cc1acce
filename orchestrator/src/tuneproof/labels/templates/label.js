// Labels of one rater: kept in the browser's storage, saved as a file, sent nowhere.
"use strict";
document.addEventListener("DOMContentLoaded", () => {
  const given = JSON.parse(document.getElementById("content").textContent);
  const storage = `tuneproof-labels-${given.sample}`;
  const at = (id) => document.getElementById(id);
  const node = (name, text, parent) => {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    if (parent) parent.append(made);
    return made;
  };
  // One place for each score of a pair: criterion by criterion, the first answer before the second.
  const places = given.criteria.flatMap((criterion) => [0, 1].map((side) => ({ criterion, side })));
  let scores = {}; // by task: {criterion: [first, second]}
  let task = 0, place = 0;

  const scoreAt = (id, { criterion, side }) => scores[id]?.[criterion.name]?.[side] ?? null;
  const complete = (id) => places.every((one) => scoreAt(id, one) !== null);
  const keep = () => {
    const held = JSON.stringify({ rater: at("rater").value, scores, task });
    // A page opened from a file may have no storage: then the file is the only copy.
    try { localStorage.setItem(storage, held); }
    catch { at("message").textContent = "This browser keeps nothing: save the file before you close the page."; }
  };
  const count = () => {
    const done = given.tasks.filter((one) => complete(one.id)).length;
    at("progress").textContent = `${done} of ${given.tasks.length} pairs`;
  };
  const mark = () => {
    document.querySelectorAll("fieldset").forEach((one) => one.classList.toggle("active", Number(one.dataset.place) === place));
  };
  const rate = (where, score) => {
    const { criterion, side } = places[where], id = given.tasks[task].id;
    scores[id] ??= {};
    scores[id][criterion.name] ??= [null, null];
    scores[id][criterion.name][side] = score;
    keep();
    count();
  };
  const radio = (where, score) => document.querySelector(`fieldset[data-place="${where}"] input[value="${score}"]`);

  const form = (where, answers) => {
    const { criterion, side } = places[where];
    const field = node("fieldset", undefined, answers[side]);
    field.dataset.place = where;
    node("legend", `${criterion.name} of answer ${"AB"[side]}`, field);
    for (let score = criterion.low; score <= criterion.high; score += 1) {
      const label = node("label", undefined, field), input = node("input", undefined, label);
      input.type = "radio";
      input.name = `place-${where}`;
      input.value = score;
      input.checked = scoreAt(given.tasks[task].id, places[where]) === score;
      input.title = criterion.anchors[score] ?? "";
      input.addEventListener("change", () => { place = where; rate(where, score); mark(); });
      label.append(` ${score}`);
    }
  };
  const open = (number) => {
    task = Math.min(Math.max(number, 0), given.tasks.length - 1);
    const shown = given.tasks[task];
    at("question").textContent = shown.question;
    at("references").replaceChildren(...shown.references.map((text) => node("li", text)));
    at("passages").querySelector("ol").replaceChildren(...shown.passages.map((text) => node("li", text)));
    at("answers").replaceChildren();
    const answers = shown.answers.map((text, side) => {
      const card = node("section", undefined, at("answers"));
      card.className = "answer";
      card.setAttribute("aria-label", `Answer ${"AB"[side]}`);
      node("h2", `Answer ${"AB"[side]}`, card);
      node("p", text || "(empty answer)", card).className = "text";
      return card;
    });
    places.forEach((_, where) => form(where, answers));
    const left = places.findIndex((one) => scoreAt(shown.id, one) === null);
    place = left < 0 ? places.length : left;
    at("back").disabled = task === 0;
    at("next").disabled = task === given.tasks.length - 1;
    mark();
    count();
    keep();
    at("question").focus({ preventScroll: true });
    scrollTo(0, 0);
  };
  const press = (key) => {
    const criterion = places[place]?.criterion, score = Number(key);
    if (!criterion || score < criterion.low || score > criterion.high) return;
    radio(place, score).checked = true;
    rate(place, score);
    place += 1; // behind the last one nothing is marked
    mark();
  };

  document.addEventListener("keydown", (event) => {
    const typing = event.target.matches("input:not([type=radio])");
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    const button = event.target.matches("button, summary");
    if (/^[0-9]$/.test(event.key)) press(event.key);
    else if (event.key === "Backspace") { place = Math.max(0, place - 1); mark(); }
    else if (event.key === "n" || (event.key === "Enter" && !button)) { if (task < given.tasks.length - 1) open(task + 1); }
    else if (event.key === "p") { if (task > 0) open(task - 1); }
    else return;
    event.preventDefault();
  });
  at("back").addEventListener("click", () => open(task - 1));
  at("next").addEventListener("click", () => open(task + 1));
  at("rater").addEventListener("input", keep);

  at("save").addEventListener("click", () => {
    const rater = at("rater").value.trim();
    at("message").textContent = rater ? "" : "Write your name first: several people may label.";
    if (!rater) { at("rater").focus(); return; }
    const labels = given.tasks.flatMap(({ id }) => given.criteria
      .filter(({ name }) => scores[id]?.[name]?.every((score) => score !== null))
      .map(({ name }) => ({ task: id, criterion: name, first: scores[id][name][0], second: scores[id][name][1] })));
    const sheet = { schema: "tuneproof.labels/1", study: given.study, sample: given.sample, rater, labels };
    const link = node("a");
    link.href = URL.createObjectURL(new Blob([JSON.stringify(sheet, null, 1)], { type: "application/json" }));
    link.download = `labels-${given.study}-${rater.replace(/[^\w-]+/g, "-")}.json`;
    link.click();
    URL.revokeObjectURL(link.href);
  });
  at("continue").addEventListener("change", async (event) => {
    const [file] = event.target.files;
    try {
      const sheet = JSON.parse(await file.text());
      if (sheet.sample !== given.sample) throw new Error("it is of another page");
      at("rater").value = sheet.rater;
      for (const one of sheet.labels) {
        scores[one.task] ??= {};
        scores[one.task][one.criterion] = [one.first, one.second];
      }
      at("message").textContent = "";
      keep();
      open(given.tasks.findIndex((one) => !complete(one.id)));
    } catch (error) { at("message").textContent = `This file cannot be used: ${error.message}.`; }
  });

  given.criteria.forEach((criterion) => {
    const block = node("section", undefined, at("anchors"));
    block.setAttribute("aria-label", criterion.name);
    node("h2", criterion.name, block);
    node("p", criterion.description, block);
    const list = node("dl", undefined, block);
    Object.entries(criterion.anchors).forEach(([score, words]) => { node("dt", score, list); node("dd", words, list); });
  });
  let kept = null;
  try { kept = JSON.parse(localStorage.getItem(storage)); } catch { /* no storage: start anew */ }
  if (kept) { scores = kept.scores; at("rater").value = kept.rater; }
  open(kept ? kept.task : 0);
});
