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

// Rows that a legend takes: about 7 pixels a letter and 50 for the line before it.
function legendRows(traces, width) {
  const names = traces.filter((one) => one.showlegend !== false && one.name && one.type !== "heatmap").map((one) => one.name);
  if (names.length < 2) return 0;
  const widest = 50 + 7 * Math.max(...names.map((name) => name.length));
  return Math.ceil(names.length / Math.max(1, Math.floor(width / widest)));
}
// Draws into a node; the room that a legend takes is added to the height.
async function drawInto(node, traces, own, height) {
  const added = 22 * Math.max(0, legendRows(traces, node.clientWidth) - 1);
  node.style.minHeight = `${height + added}px`;
  try {
    await Plotly.react(node, traces, layoutOf(own, height + added), CONFIG);
  } catch (error) {
    console.error(`figure ${node.id}: ${error.message}`); // the others are still drawn
  }
}
function drawFigures() {
  const scales = { effect: scale(), share: shareScale() };
  for (const node of document.querySelectorAll("[data-figure]")) {
    const figure = data.figures[node.dataset.figure];
    const traces = figure.data.map((one) => (scales[one.colorscale] ? { ...one, colorscale: scales[one.colorscale] } : one));
    drawInto(node, traces, figure.layout, figure.height);
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
