"use strict";
// What all parts share: the data, the theme, copying, words for numbers.
const data = JSON.parse(document.getElementById("report-data").textContent);
const $ = (id) => document.getElementById(id);

const MINUS = "\u2212";
function signed(value, digits) {
  if (value === null || value === undefined) return "undefined";
  const text = Math.abs(value).toFixed(digits);
  if (Number(text) !== 0) return (value < 0 ? MINUS : "+") + text;
  if (value === 0) return text;
  return (value < 0 ? MINUS : "+") + Math.abs(value).toExponential(0).replace("e-", `e${MINUS}`);
}
const percent = (value) => (value === null || value === undefined ? "undefined" : `${(100 * value).toFixed(1)}%`);

function make(tag, text, names = {}) {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text; // never as HTML: texts may come from anywhere
  for (const [name, value] of Object.entries(names)) node.setAttribute(name, value);
  return node;
}

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}
const onTheme = []; // called with the theme's colours
function colors() {
  const style = getComputedStyle(document.documentElement);
  return Object.fromEntries(
    ["ground", "panel", "ink", "muted", "line", "grid", "accent"].map((name) => [name, style.getPropertyValue(`--${name}`).trim()]),
  );
}
function themed() {
  const dark = isDark();
  $("theme").textContent = dark ? "Light" : "Dark";
  $("theme").setAttribute("aria-label", dark ? "Switch to light colours" : "Switch to dark colours");
  $("theme").setAttribute("aria-pressed", String(dark));
  for (const tell of onTheme) tell();
}
$("theme").addEventListener("click", () => {
  const theme = isDark() ? "light" : "dark";
  document.documentElement.dataset.theme = theme;
  try {
    localStorage.setItem("headpatch-theme", theme);
  } catch {}
  themed();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", themed);

for (const button of document.querySelectorAll(".copy")) {
  button.addEventListener("click", async () => {
    const text = button.dataset.copy;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = make("textarea", text, { class: "unseen" });
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy"), 1600);
  });
}

const contents = document.querySelector(".contents");
contents.addEventListener("click", (event) => event.target.closest("a") && (contents.open = false));
document.addEventListener("click", (event) => contents.contains(event.target) || (contents.open = false));
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && contents.open) {
    contents.open = false;
    contents.querySelector("summary").focus();
  }
});

async function unpacked(id) {
  const text = $(id).textContent.trim();
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// Verdicts: a colour and a marker each, so that colour never stands alone.
const CLASSES = Object.fromEntries(((data.heads && data.heads.classes) || []).map(({ name, color, symbol }) => [name, [color, symbol]]));
const SHAPES = {
  "triangle-up": "M8 1l8 14H0z",
  "triangle-down": "M8 15L0 1h16z",
  cross: "M6 1h4v5h5v4h-5v5H6v-5H1V6h5z",
  diamond: "M8 0l8 8-8 8-8-8z",
  square: "M1 1h14v14H1z",
  circle: "M8 1a7 7 0 1 0 .01 0z",
};
function chip(node, name) {
  const [color, symbol] = CLASSES[name] || ["#8A8A8A", "circle"];
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "-1 -1 18 18");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  const open = symbol.endsWith("-open");
  path.setAttribute("d", symbol === "x-thin-open" ? "M2 2l12 12M14 2L2 14" : SHAPES[symbol.replace("-open", "")]);
  path.setAttribute("fill", open ? "none" : color);
  path.setAttribute("stroke", open ? color : "none");
  path.setAttribute("stroke-width", "2.5");
  svg.append(path);
  node.replaceChildren(svg, make("span", name));
  return node;
}
for (const node of document.querySelectorAll(".chip[data-class]")) chip(node, node.dataset.class);
