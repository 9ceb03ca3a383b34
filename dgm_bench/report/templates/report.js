const all = (selector, root = document) => [...root.querySelectorAll(selector)];

// ------------------------------------------------------------------ sorting

// What a field is sorted by: what was measured, else published; numbers before words, blanks last.
function valueOf(field) {
  const shown = field.matches(".unfinished") ? null : field.querySelector("b");
  const text = (shown ?? field.querySelector("i") ?? (field.querySelector("em") ? null : field))?.textContent.trim() ?? "";
  if (text === "") return null;
  const number = Number.parseFloat(text.replaceAll(",", ""));
  return Number.isNaN(number) ? text : number;
}

function compare(a, b) {
  if (a === null || b === null) return (a === null) - (b === null);
  if (typeof a === typeof b) return typeof a === "number" ? a - b : a.localeCompare(b);
  return typeof a === "number" ? -1 : 1;
}

function sortable(table) {
  const body = table.tBodies[0];
  const declared = [...body.rows];
  for (const head of table.tHead.rows[0].cells) {
    const button = made("button", { type: "button" }, [...head.childNodes]);
    head.append(button);
    button.addEventListener("click", () => {
      const next = { ascending: "descending", descending: null }[head.getAttribute("aria-sort") ?? ""];
      const order = next === undefined ? "ascending" : next;
      for (const other of all("th[aria-sort]", table)) other.removeAttribute("aria-sort");
      if (order) head.setAttribute("aria-sort", order);
      body.append(...(order ? sorted(declared, head.cellIndex, order) : declared));
    });
  }
}

function sorted(rows, column, order) {
  const known = rows.map((row) => [row, valueOf(row.cells[column])]);
  const sign = order === "descending" ? -1 : 1;
  return known.sort(([, a], [, b]) => (a === null || b === null ? compare(a, b) : sign * compare(a, b))).map(([row]) => row);
}

for (const table of all("table.matrix")) sortable(table);

// ------------------------------------------------------------------ filtering

const form = document.getElementById("filters");
form.hidden = false;

let matrices;
function known() {
  matrices ??= all("table.matrix").map((table) => {
    const heads = [...table.tHead.rows[0].cells].map((head) => ({ head, text: head.textContent.toLowerCase(), data: head.dataset.data }));
    const rows = [...table.tBodies[0].rows].map((row) => ({ row, fields: [...row.cells].slice(1).map((field) => told(field, heads[field.cellIndex], row)) }));
    return { table, heads, rows };
  });
  return matrices;
}

function told(field, column, row) {
  const link = field.querySelector("a");
  const text = `${row.cells[0].textContent} ${column.text} ${link?.id ?? ""} ${field.textContent}`.toLowerCase();
  return { field, text, id: link?.id, data: column.data, state: field.className, own: field.querySelector("u") !== null };
}

function filter() {
  const asked = Object.fromEntries(new FormData(form));
  const typed = asked.text.toLowerCase().split(/\s+/).filter(Boolean);
  const passes = (cell) =>
    cell.id !== undefined && cell.id.startsWith(asked.table) && (!asked.state || cell.state === asked.state) && (!asked.data || cell.data === asked.data) &&
    (!asked.own || cell.own) && typed.every((word) => cell.text.includes(word));
  const any = typed.length > 0 || Object.values(asked).some(Boolean);
  let [count, of] = [0, 0];
  for (const { table, heads, rows } of known()) {
    const columns = new Set();
    for (const { row, fields } of rows) {
      const found = fields.map(passes);
      found.forEach((passed, i) => passed && columns.add(i + 1));
      fields.forEach(({ field }, i) => field.classList.toggle("out", !found[i]));
      row.hidden = any && !found.some(Boolean);
      count += found.filter(Boolean).length;
      of += fields.filter((cell) => cell.id !== undefined).length;
    }
    const shown = (column) => !any || column === 0 || columns.has(column);
    heads.forEach(({ head }, column) => (head.hidden = !shown(column)));
    for (const { row } of rows) for (const field of row.cells) field.hidden = !shown(field.cellIndex);
    const around = table.closest("details") ?? table.parentElement;
    around.hidden = any && columns.size === 0;
    if (around.matches("details")) around.open = any && columns.size > 0;
  }
  for (const section of all("section.table")) {
    section.hidden = any && all("table.matrix", section).every((table) => table.closest("[hidden]"));
    section.classList.toggle("filtered", any);
  }
  form.querySelector("output").textContent = any ? `${count.toLocaleString("en")} of ${of.toLocaleString("en")} cells` : "";
}

form.addEventListener("input", filter);
form.addEventListener("reset", () => setTimeout(filter));
form.addEventListener("submit", (event) => event.preventDefault());

for (const tile of all(".tiles li")) {
  const button = made("button", { type: "button", onclick: () => {
    form.elements.state.value = form.elements.state.value === tile.dataset.state ? "" : tile.dataset.state;
    filter();
  } }, [...tile.childNodes]);
  tile.append(button);
}

// ------------------------------------------------------------------ cells

const dialog = document.getElementById("cell");
const here = () => decodeURIComponent(location.hash.slice(1));

// A link to a cell opens its details, from here or from anywhere.
function openTarget() {
  const target = here();
  if (target.split("/").length === 4 && Object.hasOwn(data().cells, target)) showCell(target);
  else if (dialog.open) dialog.close();
}

dialog.addEventListener("close", () => {
  const target = here();
  if (target.split("/").length !== 4) return;
  history.replaceState(null, "", `#${tableOf(target)}`);
  document.getElementById(target)?.focus({ preventScroll: true });
});
dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
document.addEventListener("mouseover", ({ target }) => {
  const link = target.closest?.(".matrix td a");
  if (link && !link.title) link.title = words(data().cells[link.id].reason);
});
const list = document.getElementById("all-runs");
list?.addEventListener("toggle", () => list.open && showRuns(list));
addEventListener("hashchange", openTarget);
openTarget();
