// What is told of a cell or a run, made of the page's data when it is asked for.

let read;
const data = () => (read ??= JSON.parse(document.getElementById("data").textContent));
const words = (number) => data().texts[number];
const spoken = (state) => state.replaceAll("-", " ");
const tableOf = (id) => id.split("/").slice(0, 2).join("/");
const columnOf = (id) => id.split("/")[3];

const chip = (state) => made("span", { className: `chip ${state}` }, spoken(state));
const linked = (address, text) => (/^https?:/.test(address) ? made("a", { href: address }, text) : text);

function pairs(found) {
  const shown = found.filter(([, value]) => value !== undefined && value !== "");
  return made("dl", {}, shown.map(([name, value]) => [made("dt", {}, name), made("dd", {}, value)]));
}

const split = (number) => {
  const [name, ...rest] = words(number).split(": ");
  return [name, rest.join(": ")];
};

function tableFrom(heads, rows, title) {
  const head = made("thead", {}, made("tr", {}, heads.map((text) => made("th", { scope: "col" }, text))));
  const body = made("tbody", {}, rows.map((row) => made("tr", {}, row.map((inside) => made("td", {}, inside)))));
  return made("div", { className: "scroll", tabIndex: 0, role: "group", "aria-label": title }, made("table", { className: "runs" }, head, body));
}

function copied(text, name) {
  const button = made("button", { type: "button", className: "copy", onclick: async () => {
    await navigator.clipboard.writeText(text);
    button.textContent = "copied";
  } }, name);
  return button;
}

const section = (title, ...inside) => made("section", {}, made("h3", {}, title), ...inside);
const figure = (drawn, ...more) => drawn && made("figure", { className: "plot" }, drawn, ...more);

// ------------------------------------------------------------------ curves of cells

const runsOf = (cell) => (cell.runs ?? []).map(([number]) => data().runs[number]);
const whose = (run) => (run.own ? ", yours" : "");

// Of each stage, training and validation of every seed.
function overSeeds(cell, width) {
  const runs = runsOf(cell).filter((run) => run.curves);
  const stages = [...new Set(runs.flatMap((run) => run.curves.map((curve) => curve.stage)))];
  return stages.map((stage) => {
    const found = runs.flatMap((run, number) => run.curves.filter((curve) => curve.stage === stage).map((curve) => ({ run, curve, number })));
    const lines = found.flatMap(({ curve, number }) => [
      { steps: curve.steps, values: curve.training, look: number, thin: true },
      { steps: curve.steps, values: curve.validation, look: number },
    ]);
    if (!lines.some((each) => each.values.filter(isNumber).length > 1)) return null;
    const one = stages.length === 1;
    const drops = one && found.length ? found[0].run.drops : [];
    const level = one ? cell.level : undefined;
    const title = `Curves over seeds${one ? "" : `, stage ${stage}`}`;
    const drawn = curvesFigure({ lines, level, drops, unit: found[0].curve.of, title, width });
    const names = found.map(({ run, number }) => swatch(`seed ${run.seed}${whose(run)}`, look(number)));
    if (level !== undefined) names.push(swatch("published, on test data", { class: "published" }));
    if (drops?.length) names.push(swatch("learning rate drops", { class: "drop" }));
    return drawn && section(title, figure(drawn, legend(names), made("figcaption", {}, "Thick: validation; thin: training.")));
  });
}

// Of each row of the column the validations of its newest run, where they are of the same quantity.
function overRows(id, cell, width) {
  const own = runsOf(cell).find((run) => run.curves)?.curves;
  if (own?.length !== 1) return null;
  const seen = new Set();
  const lines = [];
  for (const [other, found] of Object.entries(data().cells)) {
    if (tableOf(other) !== tableOf(id) || columnOf(other) !== columnOf(id)) continue;
    const run = runsOf(found).findLast((each) => each.curves?.length === 1 && each.curves[0].of === own[0].of);
    if (!run || seen.has(run.id)) continue;
    seen.add(run.id);
    const curve = run.curves[0];
    if (curve.validation.filter(isNumber).length < 2) continue;
    lines.push({ name: words(found.row), steps: curve.steps, values: curve.validation, look: lines.length, thick: other === id });
  }
  if (lines.length < 2) return null;
  const title = `Curves over the rows of ${words(cell.column)}`;
  const drawn = curvesFigure({ lines, level: cell.level, unit: own[0].of, title, width });
  const names = lines.map((each) => swatch(each.name, look(each.look)));
  if (cell.level !== undefined) names.push(swatch(`published for ${words(cell.row)}, on test data`, { class: "published" }));
  return drawn && section(title, figure(drawn, legend(names), made("figcaption", {}, "Validation of one run a row, the newest; this row is thick.")));
}

// ------------------------------------------------------------------ a cell

function publishedSide(cell) {
  if (!cell.published) return null;
  const [where, address] = cell.source.map(words);
  return section("Published", pairs([
    ["value", `${cell.published} ${words(cell.unit)}`],
    ["its error is", words(cell.error)],
    ["selection", words(cell.selection)],
    ["model", cell.model === undefined ? "" : words(cell.model)],
    ["source", linked(address, where)],
  ]));
}

const FIRST = ["machine", "processor", "commit", "data"];

function measuredSide(cell, runs) {
  const newest = runs.at(-1);
  if (!newest) return null;
  const where = newest.where.map(split);
  return section("Measured", pairs([
    ["value", cell.measured ? `${cell.measured} ${words(cell.unit)}` : ""],
    ["done", cell.done],
    ["forecast", cell.forecast],
    ["yours", cell.yours],
    ["stored", cell.stored],
    ["compared", cell.against && [cell.word, cell.against].filter(Boolean).join(": ")],
    ["seeds", `${runs.length}`],
    ["training", runs.map((run) => run.training).join(", ")],
    ...where.filter(([name]) => FIRST.includes(name)),
  ]));
}

function newestRun(runs) {
  const where = runs.at(-1)?.where.map(split).filter(([name]) => !FIRST.includes(name));
  return where && made("details", {}, made("summary", {}, "Newest run: command, machine class, software"), pairs(where));
}

const RUN_HEADS = ["standard error", "status", "steps", "epochs", "training", "memory", "machine", "made (UTC)", "run"];
const runFields = (run) => [run.status, run.steps.toLocaleString("en"), run.epochs, run.training, run.memory, words(run.machine), run.made, made("code", {}, run.id)];
const TIME_HEADS = ["stage", "validation reached", "at", "steps", "epochs", "training", "evaluations", "machine, threads"];

function runsTable(cell) {
  const rows = (cell.runs ?? []).map(([number, value, error]) => {
    const run = data().runs[number];
    return [`${run.seed}${whose(run)}`, value, error, ...runFields(run)];
  });
  return rows.length ? section("Runs that count, by seed", tableFrom(["seed", `${words(cell.metric)} (${words(cell.unit)})`, ...RUN_HEADS], rows, "Runs")) : null;
}

function timesTable(cell) {
  if (cell.times === undefined) return null;
  const note = made("p", { className: "quiet" }, "Medians over finished runs; seconds of training compare on one machine only.");
  return section("Time to quality", note, tableFrom(TIME_HEADS, data().times[cell.times], "Time to quality"));
}

function pictures(runs) {
  const run = runs.findLast((each) => each.pictures);
  if (!run) return null;
  return section("Pictures", run.pictures.map(([name, src]) => figure(made("img", { src, alt: `${name} of ${run.cell}` }), made("figcaption", {}, `${name}, seed ${run.seed}`))));
}

function recipe(cell) {
  if (cell.recipe === undefined) return null;
  const [name, settings] = data().recipes[cell.recipe];
  return made("details", {}, made("summary", {}, `Recipe ${name}: settings that are not at their defaults`), pairs(settings.map(split)));
}

const note = (number) => made("p", { className: "quiet" }, words(number));
const erratum = ([text, source]) => made("p", { className: "erratum" }, made("b", {}, "Erratum. "), words(text), words(source) ? ` (${words(source)})` : "");

function command(id, cell) {
  if (!cell.command) return null;
  const text = cell.command === 1 ? `dgm-bench run ${id}` : cell.command;
  return made("p", {}, made("kbd", {}, text), " ", copied(text, "copy"), " ", copied(`${location.href.split("#")[0]}#${id}`, "copy link"));
}

function showCell(id) {
  const [cell, dialog] = [data().cells[id], document.getElementById("cell")];
  const runs = runsOf(cell);
  const width = Math.max(300, Math.min(680, innerWidth - 56));
  const close = made("button", { type: "button", className: "close", "aria-label": "Close", onclick: () => dialog.close() }, "×");
  dialog.replaceChildren(
    made("header", {}, made("div", {}, made("p", { className: "eyebrow" }, id), made("h2", { id: "cell-name" }, `${words(cell.row)}, ${words(cell.column)}`)), chip(cell.state), close),
    made("p", { className: "reason" }, words(cell.reason).replace(/^\p{Ll}/u, (letter) => letter.toUpperCase())),
    ...[
      cell.scale && figure(scaleFigure(cell.scale, words(cell.unit), width), made("figcaption", {}, scaleCaption(cell.scale))),
      made("div", { className: "columns" }, [publishedSide(cell), measuredSide(cell, runs)]),
      command(id, cell),
      pictures(runs),
      ...overSeeds(cell, width),
      overRows(id, cell, width),
      runsTable(cell),
      timesTable(cell),
      recipe(cell),
      newestRun(runs),
      ...(cell.errata ?? []).map(erratum),
      ...(cell.notes ?? []).map(note),
    ].filter(Boolean),
  );
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
}

function scaleCaption(scale) {
  if (isNumber(scale.so_far)) return "Hollow: the number so far, which is no measurement, and what its curve says of the end, with a 90 % interval.";
  if (!isNumber(scale.published)) return "Bar: the error of the measured number, as the table has it.";
  const bar = scale.interval ? "the 90 % interval that the verdict is about" : "the error of the measured number, as the table has it; there is no interval yet";
  return `Bar: ${bar}. Diamond: the published number.${scale.margin ? " Green: the margin of the verdict." : ""}`;
}

function showRuns(details) {
  if (details.querySelector("table")) return;
  const { runs, newest } = data();
  const rows = newest.map((number) => runs[number]).map((run) => [made("a", { href: `#${run.cell}` }, run.cell), run.headline ?? "", `${run.seed}${whose(run)}`, ...runFields(run)]);
  details.append(tableFrom(["cell", "first metric", "seed", ...RUN_HEADS.slice(1)], rows, "Runs"));
  sortable(details.querySelector("table"));
}
