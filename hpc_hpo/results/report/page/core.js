"use strict";
// Elements, numbers, the theme. Texts from the study become text nodes here and nowhere markup.
const data = JSON.parse(document.getElementById("data").textContent);
const root = document.documentElement;

function el(tag, props, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child instanceof Node ? child : String(child));
  }
  return node;
}

function svg(tag, props, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(props || {})) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

// Plotly reads some markup in its texts: none of it may come from the study.
function esc(text) {
  return String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}

function short(text, most = 28) {
  text = String(text);
  return text.length > most ? text.slice(0, most - 1) + "\u2026" : text;
}

function num(value, digits = 5) {
  if (value === null || value === undefined) return "\u2013";
  if (typeof value !== "number") return typeof value === "string" ? value : JSON.stringify(value);
  if (Number.isInteger(value) && Math.abs(value) < 1e9) return value.toLocaleString("en-GB");
  const size = Math.abs(value);
  if (size >= 1e-4 && size < 1e7) return String(Number(value.toPrecision(digits)));
  return value.toExponential(Math.max(digits - 2, 1)).replace(/\.?0+e/, "e").replace("e+", "e");
}

function fixed(value, digits) {
  return value.toLocaleString("en-GB", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

function amount(value) {
  return value >= 1000 ? fixed(value, 0) : value >= 10 ? fixed(value, 1) : fixed(value, 2);
}

function hours(value) {
  if (value === null || value === undefined) return "\u2013";
  const minutes = Math.round(value * 60);
  if (value * 3600 < 100) return `${num(Number((value * 3600).toPrecision(3)))} s`;
  if (minutes < 60) return `${minutes} min`;
  if (minutes < 60 * 72) return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
  return `${fixed(value / 24, 1)} days`;
}

function plural(count, word) {
  return `${num(count)} ${word}${count === 1 ? "" : "s"}`;
}

function when(seconds) {
  return new Date(seconds * 1000).toISOString().replace("T", " ").slice(0, 16) + " UTC";
}

function percent(share) {
  return share === null || share === undefined ? "\u2013" : `${fixed(100 * share, 1)} %`;
}

// Okabe and Ito's palette: told apart with every kind of colour vision. Patterns tell, too.
const ENDS = {
  completed: { colour: "#009E73", pattern: "", words: "completed" },
  paused: { colour: "#56B4E9", pattern: "", words: "paused" },
  failed: { colour: "#D55E00", pattern: "x", words: "failed" },
  lost: { colour: "#CC79A7", pattern: "\\", words: "lost" },
  fenced: { colour: "#F0E442", pattern: "|", words: "superseded" },
  declined: { colour: "#888888", pattern: "-", words: "never started" },
  "to do again": { colour: "#E69F00", pattern: "/", words: "work to do again" },
};
const SERIES = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#888888"];
const DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"];

function dark() {
  if (root.dataset.theme) return root.dataset.theme === "dark";
  return matchMedia("(prefers-color-scheme: dark)").matches;
}

function shade(name) {
  return getComputedStyle(root).getPropertyValue("--" + name).trim();
}

// Viridis (van der Walt and Smith), from the best, which stands out on either background.
const VIRIDIS = [[68, 1, 84], [72, 40, 120], [62, 74, 137], [49, 104, 142], [38, 130, 142],
  [31, 158, 137], [53, 183, 121], [110, 206, 88], [181, 222, 43], [253, 231, 37]];

function ramp(place) {
  const at = Math.min(Math.max(dark() ? 1 - 0.85 * place : 0.92 * place, 0), 1) * (VIRIDIS.length - 1);
  const low = Math.min(Math.floor(at), VIRIDIS.length - 2), part = at - low;
  const mixed = VIRIDIS[low].map((value, i) => Math.round(value + part * (VIRIDIS[low + 1][i] - value)));
  return `rgb(${mixed.join(",")})`;
}

function scale(flip) {
  return [0, .25, .5, .75, 1].map((t) => [t, ramp(flip ? 1 - t : t)]);
}

function table(heads, rows, options = {}) {
  const numeric = options.numeric || [];
  const kind = (column) => numeric.includes(column) ? "n" : "wrap";
  const head = el("tr", {}, heads.map((text, i) => el("th", { scope: "col", class: numeric.includes(i) ? "n" : null }, text)));
  const body = rows.map((row) => el("tr", { class: row.mark }, (row.cells || row).map((cell, i) => el("td", { class: kind(i) }, cell))));
  return el("div", { class: "scroll" + (rows.length > 24 ? " tall" : ""), tabindex: 0, role: "region", "aria-label": options.label || "table" },
    el("table", {}, el("thead", {}, head), el("tbody", {}, body)));
}

function empty(text) {
  return el("p", { class: "empty" }, text);
}

function choice(label, options, picked, change) {
  const list = el("select", { onchange: (event) => change(event.target.value) },
    options.map(([value, text]) => el("option", { value, selected: String(value) === String(picked) }, short(text, 48))));
  return el("label", {}, label, list);
}

function toggle(label, options, picked, change) {
  const buttons = options.map(([value, text]) => el("button", {
    type: "button", "aria-pressed": String(value === picked),
    onclick: () => {
      buttons.forEach((b, i) => b.setAttribute("aria-pressed", String(options[i][0] === value)));
      change(value);
    },
  }, text));
  return el("div", { class: "switch", role: "group", "aria-label": label }, buttons);
}

const sections = [];
// `brief` is what the navigation calls it.
function section(id, title, brief, ...children) {
  const node = el("section", { class: "card", id, "aria-labelledby": id + "-title" }, el("h2", { id: id + "-title" }, title), children);
  sections.push([id, brief]);
  document.getElementById("main").append(node);
  return node;
}

function tile(label, value, note) {
  return el("div", { class: "tile" }, el("dt", {}, label), el("dd", {}, value), note ? el("dd", { class: "note" }, note) : null);
}
