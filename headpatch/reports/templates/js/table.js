// The table of all heads: sorted by any column, searched, shown a part at a time.
const PART = 50;
const view = { column: 1, up: true, shown: PART, heads: [] };

function valuesOf(column) {
  const [list, index, name] = column.from;
  return data.heads[list][index][name];
}
function textOf(column, flat) {
  const value = valuesOf(column)[flat];
  if (value === null || value === undefined) return "";
  if (column.kind === "place") return value.toLocaleString("en");
  if (column.kind === "p") return value < 0.001 ? "< 0.001" : value.toFixed(3);
  let text = column.label.startsWith("with") ? value.toFixed(column.digits) : signed(value, column.digits);
  if (column.interval) {
    const [low, high] = column.interval.map(([list, index, name]) => data.heads[list][index][name][flat]);
    if (low !== null) text += ` [${signed(low, 3)}, ${signed(high, 3)}]`;
  }
  return text;
}
const fixed = () => (data.heads.verdicts ? ["Head", "Verdict"] : ["Head"]);

function headings() {
  const row = make("tr");
  const add = (label, index, numeric, title) => {
    const cell = make("th", undefined, { scope: "col", ...(numeric ? { class: "n" } : {}), ...(title ? { title } : {}) });
    const button = make("button", label, { type: "button", class: "sort" });
    button.addEventListener("click", () => {
      view.up = view.column === index ? !view.up : !(numeric && data.columns[index - fixed().length].kind === "number");
      view.column = index;
      fill();
    });
    cell.append(button);
    row.append(cell);
  };
  fixed().forEach((label, index) => add(label, index, false));
  data.columns.forEach((column, index) => add(column.label, index + fixed().length, true, column.title));
  $("heads-table").tHead.replaceChildren(row);
}
function key(flat) {
  if (view.column === 0) return flat;
  if (view.column < fixed().length) return data.heads.verdicts[flat];
  const value = valuesOf(data.columns[view.column - fixed().length])[flat];
  return value === null ? undefined : value;
}
function matches(flat) {
  const only = $("only") ? $("only").value : "";
  const verdict = classOf(flat) || "";
  if (only && verdict !== only) return false;
  const [layer, head] = [layerOf(flat), flat % H.heads];
  return $("find").value.toLowerCase().split(/[\s,]+/).filter(Boolean).every((word, index, list) => {
    if (word === "layer" || word === "head") return true;
    if (list[index - 1] === "layer") return String(layer) === word;
    if (list[index - 1] === "head") return String(head) === word;
    if (/^\d+$/.test(word)) return String(layer) === word || String(head) === word;
    if (/^\d+\.\d*$/.test(word)) return nameOf(flat).startsWith(word);
    return verdict.includes(word);
  });
}
function fill() {
  const heads = Array.from({ length: total }, (_, flat) => flat).filter(matches);
  const keys = new Map(heads.map((flat) => [flat, key(flat)]));
  heads.sort((a, b) => {
    const [x, y] = [keys.get(a), keys.get(b)];
    if (x === undefined || y === undefined) return (x === undefined) - (y === undefined) || a - b; // unknown last
    return (view.up ? x - y : y - x) || a - b;
  });
  view.heads = heads;
  [...$("heads-table").tHead.rows[0].cells].forEach((cell, index) => {
    if (index === view.column) cell.setAttribute("aria-sort", view.up ? "ascending" : "descending");
    else cell.removeAttribute("aria-sort");
  });
  rows();
}
function rows() {
  const shown = view.heads.slice(0, view.shown);
  $("heads-table").tBodies[0].replaceChildren(...shown.map((flat) => {
    const row = make("tr", undefined, { "data-flat": flat });
    const head = make("button", nameOf(flat), { type: "button", class: "head", "aria-label": `Show head ${nameOf(flat)}` });
    head.addEventListener("click", () => showHead(flat));
    const first = make("th", undefined, { scope: "row" });
    first.append(head);
    row.append(first);
    if (data.heads.verdicts) {
      const cell = make("td");
      cell.append(chip(make("span", undefined, { class: "chip" }), classOf(flat)));
      row.append(cell);
    }
    for (const column of data.columns) {
      const dim = column.floor && below(data.heads[column.from[0]][column.from[1]], flat);
      row.append(make("td", textOf(column, flat), { class: dim ? "n below" : "n", ...(dim ? { title: "below the noise floor" } : {}) }));
    }
    return row;
  }));
  const [count, all] = [view.heads.length.toLocaleString("en"), total.toLocaleString("en")];
  $("count").textContent = view.heads.length === total ? `${all} heads` : `${count} of ${all} heads`;
  $("more").hidden = shown.length === view.heads.length;
  $("more").textContent = `Show all ${count}`;
  markRow(state.chosen);
}
function markRow(flat) {
  const table = $("heads-table");
  if (!table) return;
  for (const row of table.tBodies[0].rows) row.classList.toggle("chosenrow", Number(row.dataset.flat) === flat);
}
if ($("heads-table")) {
  view.column = data.columns.length ? fixed().length : 0;
  view.up = !data.columns.length || data.columns[0].kind === "place";
  headings();
  fill();
  const again = () => {
    view.shown = PART;
    fill();
  };
  $("find").addEventListener("input", again);
  if ($("only")) $("only").addEventListener("change", again);
  $("more").addEventListener("click", () => {
    view.shown = Infinity;
    rows();
  });
}
themed();
start();
