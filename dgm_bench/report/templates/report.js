"use strict";

const all = (selector, root = document) => [...root.querySelectorAll(selector)];

// Shows the elements whose text has every word that was typed.
function filterBy(input, elements, textOf, also = () => true) {
  const apply = () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const { element, text } of texts) {
      element.hidden = !(words.every((word) => text.includes(word)) && also(element));
    }
  };
  const texts = elements.map((element) => ({ element, text: textOf(element).toLowerCase() }));
  input.addEventListener("input", apply);
  return apply;
}

const cells = all("details.cell");
const chosen = new Set();
const isChosen = (cell) => chosen.size === 0 || [...chosen].some((state) => cell.querySelector(`summary .${state}`));
const told = (cell) => all("summary, .reason", cell).map((part) => part.textContent).join(" ");
const showCells = filterBy(document.getElementById("cell-filter"), cells, told, isChosen);
for (const button of all("button[data-state]")) {
  button.addEventListener("click", () => {
    const state = button.dataset.state;
    if (!chosen.delete(state)) chosen.add(state);
    button.setAttribute("aria-pressed", chosen.has(state));
    showCells();
  });
}

for (const link of all(".matrix a")) {
  link.title = document.querySelector(`${link.hash} .reason`).textContent.trim();
}

const runFilter = document.getElementById("run-filter");
if (runFilter) filterBy(runFilter, all("table.sortable tbody tr"), (row) => row.textContent);

function compare(a, b) {
  const [x, y] = [a, b].map((cell) => cell.dataset.value ?? cell.textContent.trim());
  const byNumber = Number(x) - Number(y);
  if (x === "" || y === "") return x === y ? 0 : x === "" ? 1 : -1;
  return Number.isNaN(byNumber) ? x.localeCompare(y) : byNumber;
}

for (const head of all("table.sortable th")) {
  head.querySelector("button").addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending";
    for (const other of all("th", head.parentElement)) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const body = head.closest("table").tBodies[0];
    const rows = [...body.rows].sort((a, b) => {
      const order = compare(a.cells[head.cellIndex], b.cells[head.cellIndex]);
      return down ? -order : order;
    });
    body.append(...rows);
  });
}

for (const command of all("kbd")) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "copy";
  button.textContent = "copy";
  command.after(button);
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(button.previousElementSibling.textContent);
    button.textContent = "copied";
  });
}

// A link to a cell opens its details.
function openTarget() {
  const target = document.getElementById(location.hash.slice(1));
  if (!target || !target.matches("details")) return;
  target.hidden = false;
  target.open = true;
  target.scrollIntoView();
}
addEventListener("hashchange", openTarget);
openTarget();
