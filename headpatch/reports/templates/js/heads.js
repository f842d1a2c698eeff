// The two maps, the scatter and the chosen head: one pointer, one choice, for all of them.
const H = data.heads;
const state = { look: 0, effect: 0, at: null, chosen: null };
const depth = H ? H.layers.length : 0; // layers that have heads
const total = H ? depth * H.heads : 0;
const layerOf = (flat) => H.layers[Math.floor(flat / H.heads)];
const nameOf = (flat) => `${layerOf(flat)}.${flat % H.heads}`;
const flatOf = (name) => {
  const [layer, head] = name.split(".").map(Number);
  return H.layers.indexOf(layer) * H.heads + head;
};
const root = (value) => (value === null ? null : Math.sign(value) * Math.sqrt(Math.abs(value)));
const look = () => H.looks[state.look];
const effect = () => H.effects[state.effect];
const classOf = (flat) => (H.verdicts ? H.classes[H.verdicts[flat]].name : null);
const below = (one, flat) => one.floor !== null && one.normalized[flat] !== null && Math.abs(one.normalized[flat]) <= one.floor;

function interval(one, flat) {
  if (!one.low || one.low[flat] === null) return "";
  return ` [${signed(one.low[flat], 3)}, ${signed(one.high[flat], 3)}]`;
}
function words(flat) {
  const lines = [];
  if (look()) {
    const value = look().diff[flat];
    lines.push(`attention difference ${signed(value, 3)}${interval(look(), flat)}, place ${look().rank[flat].toLocaleString("en")}`);
  }
  if (effect()) {
    const floor = below(effect(), flat) ? ", below the noise floor" : "";
    lines.push(`effect ${signed(effect().normalized[flat], 3)}${interval(effect(), flat)}${floor} (${effect().kind}, ${effect().direction})`);
  }
  if (classOf(flat)) lines.push(`verdict: ${classOf(flat)}`);
  return lines;
}

// Maps. Views of one quantity share a scale, so that a colour means the same in each. Effects follow
// the square root, since a few heads tower over the rest; attention does not, else nearly all colour.
const mostOf = (views) => Math.max(...views.flat().map((value) => (value === null ? 0 : Math.abs(value)))) || 1;
const MOST = H ? { look: mostOf(H.looks.map((one) => one.diff)), effect: mostOf(H.effects.map((one) => one.normalized)) } : {};
function ticks(most, shares = [-1, -0.25, -0.0625, 0, 0.0625, 0.25, 1]) {
  const at = shares.map((share) => share * most);
  const digits = Math.max(1, Math.ceil(1 - Math.log10(most / 16)));
  return { at, texts: at.map((value) => signed(value, Math.min(digits, 5))) };
}
function grid(values) {
  return Array.from({ length: depth }, (_, layer) => values.slice(layer * H.heads, (layer + 1) * H.heads));
}
function layerTicks() {
  const step = depth > 16 ? 8 : depth > 8 ? 4 : 1;
  if (H.layers[depth - 1] === depth - 1) return { dtick: step, tick0: 0 };
  const tickvals = H.layers.map((_, row) => row).filter((row) => row % step === 0);
  return { tickvals, ticktext: tickvals.map((row) => H.layers[row]) };
}
function drawMap(id, values, most, along, shares) {
  const node = $(id);
  if (!node) return;
  const { at, texts } = ticks(most, shares);
  const side = along(most);
  const trace = {
    type: "heatmap", z: grid(values.map(along)), zmin: -side, zmax: side, colorscale: scale(), hoverinfo: "skip", xgap: 0.5, ygap: 0.5,
    colorbar: { thickness: 10, outlinewidth: 0, tickvals: at.map(along), ticktext: texts, tickfont: { size: 11 }, x: 1.01, xpad: 0, len: 1 },
  };
  const layout = layoutOf({
    xaxis: { title: { text: "head" }, range: [-0.5, H.heads - 0.5], showgrid: false, zeroline: false, dtick: H.heads > 16 ? 8 : H.heads > 8 ? 4 : 1, tick0: 0 },
    yaxis: { title: { text: "layer" }, showgrid: false, zeroline: false, range: [depth - 0.5, -0.5], ...layerTicks() },
    shapes: shapes(),
  }, 400);
  Plotly.react(node, [trace], layout, CONFIG);
}
// An axis that outlines do not stretch: else a figure is laid out anew under the pointer.
function rangeOf(values) {
  const low = Math.min(0, ...values), high = Math.max(0, ...values), room = 0.06 * (high - low || 1);
  return [low - room, high + room];
}
function cell(flat, color, width) {
  const x = flat % H.heads, y = Math.floor(flat / H.heads);
  return { type: "rect", x0: x - 0.5, x1: x + 0.5, y0: y - 0.5, y1: y + 0.5, line: { color, width } };
}
function shapes() {
  const c = colors(), found = [];
  if (state.chosen !== null) found.push(cell(state.chosen, c.ink, 2.5));
  if (state.at !== null) found.push(cell(state.at, c.accent, 2.5));
  return found;
}
function ring(flat, color) {
  const y = root(effect().normalized[flat]);
  return {
    type: "circle", xsizemode: "pixel", ysizemode: "pixel", xanchor: look().diff[flat], yanchor: y === null ? 0 : y,
    x0: -9, x1: 9, y0: -9, y1: 9, line: { color, width: 2 },
  };
}
function rings() {
  const c = colors(), found = [];
  if (state.chosen !== null) found.push(ring(state.chosen, c.ink));
  if (state.at !== null) found.push(ring(state.at, c.accent));
  return found;
}
function mark() {
  for (const id of ["map-look", "map-effect"]) if ($(id)) Plotly.relayout($(id), { shapes: shapes() });
  if ($("scatter-plot")) Plotly.relayout($("scatter-plot"), { shapes: rings() });
}

// Scatter
const QUIET = ["inert", "undecided", "all other heads"];
function drawScatter() {
  const node = $("scatter-plot");
  if (!node) return;
  const x = look().diff, y = effect().normalized;
  const { at, texts } = ticks(mostOf([y]));
  const all = Array.from({ length: total }, (_, flat) => flat);
  const groups = H.verdicts
    ? H.classes.map(({ name, color, symbol }, code) => [name, all.filter((flat) => H.verdicts[flat] === code), color, symbol])
    : [
        ["all other heads", all.filter((flat) => look().rank[flat] > data.scatter.top), "#8A8A8A", "circle"],
        [`the ${data.scatter.top} that look most`, all.filter((flat) => look().rank[flat] <= data.scatter.top), "#D55E00", "diamond"],
      ];
  if (H.verdicts) groups.reverse(); // the strongest on top
  const traces = groups.filter(([, heads]) => heads.length).map(([name, heads, color, symbol]) => ({
    type: "scatter", mode: "markers", name: `${name} (${heads.length.toLocaleString("en")})`, hoverinfo: "skip",
    x: heads.map((flat) => x[flat]), y: heads.map((flat) => root(y[flat])), customdata: heads,
    marker: { color, symbol, size: QUIET.includes(name) ? 5 : name === "watches" ? 6 : 10, opacity: QUIET.includes(name) ? 0.6 : 1, line: { width: symbol.endsWith("open") ? 2 : 0, color } },
  }));
  const size = (flat) => Math.abs(y[flat] ?? 0);
  const [acting, looking] = node.clientWidth < 500 ? [4, 2] : [10, 4];
  const bySize = [...all].sort((a, b) => size(b) - size(a)).slice(0, acting);
  const byLook = [...all].sort((a, b) => look().rank[a] - look().rank[b]).slice(0, looking);
  const named = [...new Set([...bySize, ...byLook])];
  const layout = {
    xaxis: { title: { text: "attention difference" }, range: rangeOf(x), zeroline: true },
    yaxis: { title: { text: `effect (${effect().kind}, ${effect().direction})` }, range: rangeOf(y.map(root)), zeroline: true, tickvals: at.map(root), ticktext: texts },
    legend: { orientation: "h", x: 0, y: 1.01, xanchor: "left", yanchor: "bottom", traceorder: "reversed" },
    shapes: rings(),
  };
  drawInto(node, traces, layout, 460, named.map((flat) => [nameOf(flat), x[flat], root(y[flat]) ?? 0]));
}

// Pointing
function point(flat, place) {
  if (state.at === flat) return;
  state.at = flat;
  mark();
  const tip = $("tip");
  if (flat === null) {
    tip.hidden = true;
    return;
  }
  tip.replaceChildren(make("b", `Head ${nameOf(flat)}`), ...words(flat).map((line) => make("div", line)));
  tip.hidden = false;
  const left = Math.min(place.x + 14, innerWidth - tip.offsetWidth - 8);
  const top = place.y + 16 + tip.offsetHeight > innerHeight ? place.y - tip.offsetHeight - 12 : place.y + 16;
  tip.style.left = `${Math.max(8, left)}px`;
  tip.style.top = `${Math.max(8, top)}px`;
}
function placeOf(node, flat) {
  const box = node.getBoundingClientRect(), { xaxis, yaxis } = node._fullLayout;
  const scattered = node.id === "scatter-plot";
  const x = scattered ? look().diff[flat] : flat % H.heads, y = scattered ? root(effect().normalized[flat]) ?? 0 : Math.floor(flat / H.heads);
  return { x: box.left + xaxis._offset + xaxis.d2p(x), y: box.top + yaxis._offset + yaxis.d2p(y) };
}
// The head at a place of the window, or null: its cell, or the nearest shown point. Plotly's own
// events lose a click soon after a redraw.
function flatAt(node, place) {
  const box = node.getBoundingClientRect(), { xaxis, yaxis } = node._fullLayout;
  const x = place.x - box.left - xaxis._offset, y = place.y - box.top - yaxis._offset;
  if (x < 0 || y < 0 || x >= xaxis._length || y >= yaxis._length) return null;
  if (node.id !== "scatter-plot") return Math.floor(yaxis.p2d(y) + 0.5) * H.heads + Math.floor(xaxis.p2d(x) + 0.5);
  const shown = node.data.filter((trace) => trace.visible !== "legendonly").flatMap((trace) => trace.customdata);
  let nearest = null, least = 20; // pixels
  for (const flat of shown) {
    const at = placeOf(node, flat), away = Math.hypot(at.x - place.x, at.y - place.y);
    if (away < least) [nearest, least] = [flat, away];
  }
  return nearest;
}
function listen(node) {
  const under = (event) => flatAt(node, { x: event.clientX, y: event.clientY });
  let last = "";
  node.addEventListener("mousemove", (event) => {
    const place = { x: event.clientX, y: event.clientY }, now = `${place.x} ${place.y}`;
    if (now === last) return; // the page was scrolled under a pointer that rests, by a key perhaps
    last = now;
    state.byKey = false;
    point(under(event), place);
  });
  node.addEventListener("mouseleave", () => {
    if (!state.byKey) point(null); // likewise
  });
  node.addEventListener("click", (event) => {
    const flat = under(event);
    if (flat !== null) choose(flat);
  });
  node.addEventListener("blur", () => point(null));
  node.addEventListener("keydown", (event) => {
    const from = state.at ?? state.chosen ?? 0;
    const next = node.id === "scatter-plot" ? stepAlong(from, event.key) : stepOn(from, event.key);
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      choose(from);
    } else if (next !== null) {
      event.preventDefault();
      state.byKey = true;
      point(next, placeOf(node, next));
      $("spoken").textContent = `Head ${nameOf(next)}: ${words(next).join("; ")}`;
    }
  });
}
function stepOn(flat, key) {
  const head = flat % H.heads, layer = Math.floor(flat / H.heads);
  const to = {
    ArrowLeft: [layer, head - 1], ArrowRight: [layer, head + 1], ArrowUp: [layer - 1, head], ArrowDown: [layer + 1, head],
    Home: [layer, 0], End: [layer, H.heads - 1], PageUp: [0, head], PageDown: [depth - 1, head],
  }[key];
  if (!to) return null;
  const clip = (value, most) => Math.max(0, Math.min(most - 1, value));
  return clip(to[0], depth) * H.heads + clip(to[1], H.heads);
}
function stepAlong(flat, key) {
  const step = { ArrowLeft: 1, ArrowDown: 1, ArrowRight: -1, ArrowUp: -1 }[key];
  const rank = key === "Home" ? total : key === "End" ? 1 : step && look().rank[flat] + step;
  if (!rank) return null;
  return look().rank.indexOf(Math.max(1, Math.min(total, rank)));
}

// Choosing
function choose(flat) {
  state.chosen = flat;
  const name = nameOf(flat);
  $("chosen-title").textContent = `Head ${name}`;
  const verdict = classOf(flat);
  $("chosen-class").hidden = !verdict;
  if (verdict) chip($("chosen-class"), verdict);
  $("chosen-words").textContent = look() ? words(flat)[0] : "";
  const table = $("chosen-effects");
  if (table) {
    const logits = H.effects.some((one) => one.effect);
    table.tHead.rows[0].cells[2].hidden = !logits;
    const rows = [];
    const several = new Set(H.effects.map((one) => one.where)).size > 1;
    H.effects.forEach((one, index) => {
      if (several && (index === 0 || one.where !== H.effects[index - 1].where)) {
        const heading = make("tr", undefined, { class: "where" });
        heading.append(make("th", one.where, { scope: "rowgroup", colspan: logits ? "3" : "2" }));
        rows.push(heading);
      }
      const row = make("tr"), low = below(one, flat);
      row.append(make("th", `${one.kind}, ${one.direction}`, { scope: "row" }));
      row.append(make("td", `${signed(one.normalized[flat], 3)}${interval(one, flat)}`, { class: low ? "n below" : "n", ...(low ? { title: "below the noise floor" } : {}) }));
      if (logits) row.append(make("td", one.effect ? signed(one.effect[flat], 3) : "", { class: "n" }));
      rows.push(row);
    });
    table.tBodies[0].replaceChildren(...rows);
  }
  drawOverlay(flat, name);
  mark();
  markRow(flat);
}

function drawHeads() {
  drawMap("map-look", look() ? look().diff : [], MOST.look, (value) => value, [-1, -0.5, 0, 0.5, 1]);
  drawMap("map-effect", effect() ? effect().normalized : [], MOST.effect, root);
  drawScatter();
}
async function startHeads() {
  if (!H) return;
  await startOverlays();
  await Promise.all([...document.querySelectorAll(".side img")].map((image) => image.decode().catch(() => {})));
  drawHeads();
  onTheme.push(drawHeads);
  for (const id of ["map-look", "map-effect", "scatter-plot"]) if ($(id)) listen($(id));
  for (const [id, key] of [["choose-look", "look"], ["choose-effect", "effect"]])
    if ($(id)) $(id).addEventListener("change", (event) => {
      state[key] = Number(event.target.value);
      drawHeads();
      choose(state.chosen);
    });
  for (const button of document.querySelectorAll("button[data-head]"))
    button.addEventListener("click", () => showHead(flatOf(button.dataset.head)));
  choose(H.first);
}
function showHead(flat) {
  choose(flat);
  $("maps").scrollIntoView({ behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth", block: "start" });
}
