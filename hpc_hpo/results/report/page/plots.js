// Plots: each is a function that makes its traces anew, for the theme and the chosen segment.
const plots = new Map();
const narrow = () => root.clientWidth < 640;
let printing = false;
// The height of a sheet in pixels, less a heading: a plot is never on two.
const SHEET = 820;

function figure(id, label, caption, make) {
  const holder = el("div", { class: "plot", id, role: "img", "aria-label": label });
  plots.set(id, { holder, make });
  return el("figure", {}, holder, caption ? el("figcaption", {}, caption) : null);
}

function axis(title, more = {}) {
  return {
    title: { text: title, standoff: 8 }, gridcolor: shade("grid"), zeroline: false,
    linecolor: shade("line"), tickcolor: shade("line"), automargin: true, ...more,
  };
}

function layout(more) {
  const { xaxis, yaxis, ...others } = more;
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", height: 360,
    margin: { l: 58, r: 14, t: 30, b: 46 }, hovermode: "closest", dragmode: "zoom",
    font: { family: "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'DejaVu Sans', sans-serif", size: narrow() ? 11 : 13, color: shade("ink") },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: shade("soft"), activecolor: shade("ink") },
    legend: { orientation: "h", x: 0, y: 1.01, xanchor: "left", yanchor: "bottom", font: { color: shade("soft") }, itemsizing: "constant" },
    hoverlabel: { align: "left", bgcolor: shade("card"), bordercolor: shade("line"), font: { color: shade("ink") } },
    xaxis: xaxis || axis(""), yaxis: yaxis || axis(""), ...others,
  };
}

const CONFIG = {
  responsive: true, displaylogo: false, showSendToCloud: false, plotlyServerURL: "", showTips: false,
  modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "toggleSpikelines"],
};

function draw(id) {
  const { holder, make } = plots.get(id);
  const made = make();
  if (!made || typeof made === "string") {
    Plotly.purge(holder);
    holder.replaceChildren(empty(made || "Nothing to draw yet."));
    return;
  }
  if (holder.querySelector(".empty")) holder.replaceChildren();
  const config = { ...CONFIG, displayModeBar: narrow() || printing ? false : "hover", ...(made.config || {}) };
  const options = layout(made.layout || {});
  if (printing) Object.assign(options, { width: 660, height: Math.min(options.height, SHEET) });
  Plotly.react(holder, made.data, options, config);
  if (made.after) made.after(holder);
}

const redrawn = [];
function drawAll() {
  for (const id of plots.keys()) draw(id);
  for (const again of redrawn) again();
}

function lossTitle(at = 0) {
  const goal = (data.goals || [])[at];
  const maximised = goal ? goal.maximise : data.direction === "maximize";
  return (goal ? esc(short(goal.name)) : "loss") + (maximised ? " (maximised)" : "");
}

// An axis of numbers. On a logarithmic one every label is a whole number as people write it, and
// small integers have no label between them.
function numberAxis(title, values, log, more = {}) {
  const known = values.filter((value) => value !== null && (!log || value > 0));
  const low = known.reduce((a, b) => Math.min(a, b), Infinity), high = known.reduce((a, b) => Math.max(a, b), -Infinity);
  if (!log) return axis(title, { type: "linear", ...(known.every(Number.isInteger) && high - low <= 12 ? { tick0: 0, dtick: 1 } : {}), ...more });
  if (!known.length) return axis(title, { type: "log", ...more });
  const decades = Math.log10(high / low);
  const parts = decades < .7 ? [1, 1.5, 2, 3, 4, 5, 6, 8] : decades <= 3 ? [1, 2, 5] : [1], step = Math.ceil(decades / 8) || 1;
  const tickvals = [];
  for (let e = Math.floor(Math.log10(low)) - 1; e <= Math.log10(high) + 1; e += step) for (const part of parts) tickvals.push(Number(`${part}e${e}`));
  return axis(title, { type: "log", tickvals, ticktext: tickvals.map((value) => num(value, 3)), ...more });
}

function lossAxis(title, values) {
  return numberAxis(title, values, lossType(values) === "log");
}

// Losses over several orders of magnitude are read on a logarithmic axis.
function lossType(values) {
  const known = values.filter((value) => value !== null);
  const low = known.reduce((a, b) => Math.min(a, b), Infinity), high = known.reduce((a, b) => Math.max(a, b), -Infinity);
  return low > 0 && high / low > 30 ? "log" : "linear";
}

function band(x, low, high, name, colour, legend, yshape) {
  return {
    type: "scatter", mode: "lines", x: [...x, ...[...x].reverse()], y: [...high, ...[...low].reverse()],
    fill: "toself", fillcolor: colour, line: { width: 0, shape: yshape }, name, showlegend: legend, hoverinfo: "skip",
  };
}

function faded(hex, part) {
  const value = parseInt(hex.slice(1), 16);
  return `rgba(${value >> 16},${(value >> 8) & 255},${value & 255},${part})`;
}

// Lines with gaps between them make one trace of many.
function joined(lines, textOf) {
  const x = [], y = [], text = [];
  for (const line of lines) {
    const words = textOf(line);
    line.x.forEach((at, i) => { x.push(at); y.push(line.y[i]); text.push(words(i)); });
    x.push(null); y.push(null); text.push("");
  }
  return { x, y, text };
}
