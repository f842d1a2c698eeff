// Figures: Plotly's script, unpacked once; layouts that follow the theme; print.
const EFFECT = {
  light: [[0, "#08306B"], [0.25, "#0072B2"], [0.5, "#F7F7F7"], [0.75, "#D55E00"], [1, "#7F2704"]],
  dark: [[0, "#9CD2F5"], [0.25, "#3D93CC"], [0.5, "#23292e"], [0.75, "#E0702A"], [1, "#FFC79E"]],
};
const CONFIG = { displaylogo: false, displayModeBar: false, responsive: true, scrollZoom: false, doubleClick: false, doubleClickDelay: 1 }; // two quick clicks choose two heads

function scale() {
  return EFFECT[isDark() && !printing ? "dark" : "light"];
}
// Of shares: from 0 up, the upper half of it
function shareScale() {
  return scale().slice(2).map(([at, color]) => [2 * at - 1, color]);
}
let printing = false;

function layoutOf(own, height) {
  const c = colors();
  const axis = (given, name) => ({
    gridcolor: c.grid, zerolinecolor: c.muted, zerolinewidth: 1, linecolor: c.line, ticks: "", automargin: true,
    fixedrange: true, ...(name === "x" ? { tickangle: 0 } : {}), ...given,
    title: { standoff: 8, font: { size: 12 }, ...(given && given.title) },
  });
  const full = {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: c.ink },
    margin: { l: 8, r: 8, t: 10, b: 8 },
    hoverlabel: { bgcolor: c.panel, bordercolor: c.line, font: { color: c.ink, size: 12 } },
    hovermode: "closest", dragmode: false,
    legend: { orientation: "h", x: 0, y: 1.02, xanchor: "left", yanchor: "bottom", font: { size: 12 } },
    ...own, height,
  };
  for (const key of new Set(["xaxis", "yaxis", ...Object.keys(own)]))
    if (/^[xy]axis\d*$/.test(key)) full[key] = axis(own[key] || {}, key[0]);
  return full;
}

// Written ticks of an x axis that keep apart at this width, the last among them.
function thinned(axis, width) {
  if (!axis || axis.tickmode !== "array" || axis.tickangle || !axis.range) return axis;
  const [low, high] = axis.range, [start, end] = axis.domain || [0, 1];
  const place = (value) => ((value - low) / (high - low)) * width * (end - start);
  const half = (text) => textWidth(String(text).split("<br>")[0], 12) / 2 + 4;
  const ticks = axis.tickvals.map((value, index) => ({ value, text: axis.ticktext[index] }));
  ticks.sort((a, b) => b.value - a.value);
  const kept = [];
  for (const one of ticks) {
    const free = kept.every((other) => Math.abs(place(other.value) - place(one.value)) >= half(one.text) + half(other.text));
    if (free) kept.push(one);
  }
  return { ...axis, tickvals: kept.map((one) => one.value), ticktext: kept.map((one) => one.text) };
}
const pen = document.createElement("canvas").getContext("2d");
function textWidth(text, size) {
  pen.font = `${size}px ${getComputedStyle(document.body).fontFamily}`;
  return pen.measureText(text).width;
}

// Names beside points, as near as there is room; the first choose first, and one without room is left out.
const SIDES = [[1, 0], [-1, 0], [0, -1], [0, 1], [1, -1], [-1, -1], [1, 1], [-1, 1]];
const REACH = [7, 14, 24, 36, 52]; // pixels from the point; from the third on a line leads to the name
function placeNames(node, names) {
  const { xaxis, yaxis } = node._fullLayout, c = colors(), size = 11;
  const at = names.map(([text, x, y]) => ({ text, x, y, left: xaxis.d2p(x), top: yaxis.d2p(y) }));
  const overlap = (a, b) => a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3];
  const taken = at.map(({ left, top }) => [left - 5, top - 5, left + 5, top + 5]), found = [];
  for (const { text, x, y, left, top } of at) {
    const wide = textWidth(text, size) / 2 + 2, tall = size / 2 + 2;
    for (const [reach, across, up] of REACH.flatMap((reach) => SIDES.map((side) => [reach, ...side]))) {
      const dx = across * (reach + wide), dy = up * (reach + (across ? 0 : tall));
      const box = [left + dx - wide, top + dy - tall, left + dx + wide, top + dy + tall];
      if (box[0] < 0 || box[1] < 0 || box[2] > xaxis._length || box[3] > yaxis._length) continue;
      if (taken.some((other) => overlap(box, other))) continue;
      taken.push(box);
      const led = reach >= REACH[2];
      found.push({
        x, y, text, font: { size, color: c.ink }, bgcolor: `${c.ground}cc`, borderpad: 0, captureevents: false,
        ...(led ? { showarrow: true, arrowhead: 0, arrowwidth: 0.7, arrowcolor: c.muted, standoff: 4, ax: dx, ay: dy } : { showarrow: false, xshift: dx, yshift: -dy }),
      });
      break;
    }
  }
  return Plotly.relayout(node, { annotations: found });
}

// Rows that a legend takes: about 7 pixels a letter and 50 for the line before it.
function legendRows(traces, width) {
  const names = traces.filter((one) => one.showlegend !== false && one.name && one.type !== "heatmap").map((one) => one.name);
  if (names.length < 2) return 0;
  const widest = 50 + 7 * Math.max(...names.map((name) => name.length));
  return Math.ceil(names.length / Math.max(1, Math.floor(width / widest)));
}
// Draws into a node; the room that a legend takes is added to the height.
async function drawInto(node, traces, own, height, names = []) {
  const added = 22 * Math.max(0, legendRows(traces, node.clientWidth) - 1);
  node.style.minHeight = `${height + added}px`;
  const axes = Object.keys(own).filter((key) => /^xaxis\d*$/.test(key));
  const fitted = Object.fromEntries(axes.map((key) => [key, thinned(own[key], node.clientWidth - 70)]));
  try {
    await Plotly.react(node, traces, layoutOf({ ...own, ...fitted }, height + added), CONFIG);
    if (names.length) await placeNames(node, names);
  } catch (error) {
    console.error(`figure ${node.id}: ${error.message}`); // the others are still drawn
  }
}
function drawFigures() {
  const scales = { effect: scale(), share: shareScale() };
  for (const node of document.querySelectorAll("[data-figure]")) {
    const figure = data.figures[node.dataset.figure];
    const traces = figure.data.map((one) => (scales[one.colorscale] ? { ...one, colorscale: scales[one.colorscale] } : one));
    drawInto(node, traces, figure.layout, figure.height, figure.names);
  }
}

// Plotly does not lay figures out again for paper
function forPrint(on) {
  if (printing === on || !window.Plotly) return;
  printing = on;
  for (const tell of onTheme) tell();
  for (const node of document.querySelectorAll(".plot.js-plotly-plot")) {
    const width = on ? (node.closest(".three") ? 210 : node.closest(".two, .maps") ? 320 : 660) : node.clientWidth;
    Plotly.relayout(node, { width: on ? width : undefined, autosize: !on });
  }
}
let shownWidth = innerWidth, resized = 0;
addEventListener("resize", () => {
  clearTimeout(resized);
  resized = setTimeout(() => {
    if (innerWidth === shownWidth || printing || !document.documentElement.dataset.ready) return;
    shownWidth = innerWidth; // ticks and names are chosen by it
    for (const tell of onTheme) tell();
  }, 200);
});
addEventListener("beforeprint", () => forPrint(true));
addEventListener("afterprint", () => forPrint(false));

async function start() {
  if (!$("library")) return;
  if (typeof DecompressionStream === "undefined") {
    $("no-figures").hidden = false;
    return;
  }
  const script = document.createElement("script");
  script.textContent = new TextDecoder().decode(await unpacked("library"));
  document.head.append(script);
  onTheme.push(drawFigures);
  drawFigures();
  await startHeads();
  document.documentElement.dataset.ready = "yes"; // tests wait for it
}
