// What the losses say of the parameters: importance, slices and contours; learning curves.
function importanceFigure(found) {
  if (!found) return "Nothing to draw yet.";
  if (found.why) return `No importance: it ${found.why}.`.replace("it all", "all").replace("it no", "no");
  const order = [...found.axis.keys()].reverse();
  const names = order.map((i) => esc(short(data.axes[found.axis[i]].name, narrow() ? 14 : 28)));
  return {
    data: [{
      type: "bar", orientation: "h", y: order.map((_, i) => i), x: order.map((i) => found.share[i]), marker: { color: SERIES[0] },
      error_x: { type: "data", array: order.map((i) => found.spread[i]), color: shade("soft"), thickness: 1.2, width: 3 },
      hoverinfo: "text", hovertext: order.map((i) => `${esc(data.axes[found.axis[i]].name)}: ${num(found.share[i], 3)} \u00b1 ${num(found.spread[i], 2)}`), textposition: "none",
    }],
    layout: {
      height: 90 + 30 * names.length, margin: { l: 40, r: 14, t: 8, b: 46 }, bargap: .35, showlegend: false,
      xaxis: axis("growth of the prediction's error", { rangemode: "tozero" }), yaxis: axis("", { tickvals: order.map((_, i) => i), ticktext: names }),
    },
  };
}

function explained(found) {
  if (!found || found.why) return "";
  const word = found.explained < .2 ? "so the importances say little" : found.explained < .6 ? "a rough picture" : "a good picture";
  return `On trials that it had not seen, the forest explains ${percent(Math.max(found.explained, 0))} of the spread: ${word}. Learned from ${plural(found.trials, "trial")}; whiskers: the spread over four folds.`;
}

let pair = [0, 1];
function drawable() {
  return data.axes.map((a, i) => i).filter((i) => data.axes[i].kind !== "none");
}

function paramAxis(number) {
  const a = data.axes[number], title = esc(short(a.name));
  if (a.kind !== "category") return numberAxis(title, group.points.columns[number], a.log);
  return axis(title, { tickvals: a.categories.map((_, i) => i), ticktext: a.categories.map((c) => esc(short(c, 14))), range: [-.5, a.categories.length - .5] });
}

function valueText(number, code) {
  const a = data.axes[number];
  return code === null ? "absent" : a.kind === "category" ? a.categories[code] : num(code);
}

// Categories are drawn beside their place, so that dots do not hide each other.
function spread(number, codes, seed) {
  if (data.axes[number].kind !== "category") return codes;
  return codes.map((code, i) => code === null ? null : code + .5 * (((i * 0.618034 + seed) % 1) - .5));
}

function sliceFigure(which) {
  const points = group && group.points, number = pair[which];
  if (!points || !points.trial.length) return "No trial has a loss yet.";
  if (number === undefined) return "The space has no further parameter.";
  const codes = points.columns[number];
  if (codes.every((c) => c === null)) return "No trial of this segment has the parameter.";
  return {
    data: [{
      type: "scatter", mode: "markers", x: spread(number, codes, .1), y: points.loss, hoverinfo: "text",
      text: points.trial.map((t, i) => `trial ${t}: loss ${esc(num(points.loss[i]))}<br>${esc(data.axes[number].name)} = ${esc(valueText(number, codes[i]))}`),
      marker: { size: 7, opacity: .75, color: points.trial, colorscale: scale(true), line: { width: 0 }, showscale: !narrow(),
        colorbar: { title: { text: "trial", side: "right" }, thickness: 10, outlinewidth: 0, len: .9 } },
    }],
    layout: { height: 320, margin: { l: 58, r: 10, t: 10, b: 46 }, xaxis: paramAxis(number), yaxis: lossAxis(lossTitle(), points.loss) },
  };
}

function contourFigure() {
  const points = group && group.points, [a, b] = pair;
  if (!points || !points.trial.length) return "No trial has a loss yet.";
  if (b === undefined) return "The space has no further parameter.";
  if (a === b) return "Choose two different parameters.";
  const found = group.contours.find((c) => (c.x === a && c.y === b) || (c.x === b && c.y === a));
  const flip = data.direction === "maximize", traces = [];
  if (found) {
    const turned = found.x !== a;
    const z = turned ? found.xs.map((_, i) => found.ys.map((_, j) => found.z[j][i])) : found.z;
    traces.push({
      type: "contour", x: turned ? found.ys : found.xs, y: turned ? found.xs : found.ys, z, colorscale: scale(flip), ncontours: 14, opacity: .8,
      contours: { coloring: "fill" }, line: { width: .4, color: shade("card") }, hoverinfo: "skip",
      colorbar: { title: { text: "expected loss", side: "right" }, thickness: 10, outlinewidth: 0, len: .95 }, showscale: !narrow(),
    });
  }
  const xs = points.columns[a], ys = points.columns[b];
  traces.push({
    type: "scatter", mode: "markers", cliponaxis: false, x: spread(a, xs, .3), y: spread(b, ys, .7), hoverinfo: "text",
    text: points.trial.map((t, i) => `trial ${t}: loss ${esc(num(points.loss[i]))}<br>${esc(data.axes[a].name)} = ${esc(valueText(a, xs[i]))}<br>${esc(data.axes[b].name)} = ${esc(valueText(b, ys[i]))}`),
    marker: found ? { size: 5, color: shade("ink"), opacity: .55, line: { width: .8, color: shade("card") } }
      : { size: 8, color: points.loss, colorscale: scale(flip), opacity: .85, showscale: !narrow(), colorbar: { title: { text: "loss", side: "right" }, thickness: 10, outlinewidth: 0 } },
  });
  return { data: traces, layout: { height: 430, margin: { l: 58, r: 10, t: 10, b: 46 }, showlegend: false, xaxis: paramAxis(a), yaxis: paramAxis(b) } };
}

function searchSections() {
  const all = drawable();
  const ranked = [...new Set([...(group && group.importance.axis || []), ...all])];
  pair = ranked.slice(0, 2);
  const left = data.axes.filter((a) => a.kind === "none").map((a) => a.name);
  const note = left.length ? ` Without an axis, for their many different texts or lists: ${left.join(", ")}.` : "";
  section("parallel", "Parallel coordinates", "Parallel",
    el("p", { class: "soft" }, "A line for each trial, the best ones on top. Drag the marks at an axis, or move to them with Tab and use the arrow keys, to keep only the trials between them." + note),
    parallel());
  const words = el("p", { class: "soft small" });
  const fill = () => { words.textContent = group ? explained(group.importance) : ""; };
  fill();
  redrawn.push(fill);
  section("importance", "Importance of the parameters", "Importance",
    el("p", { class: "soft" }, data.method + ". Places: from 0 for the best loss of the segment to 1 for the worst."),
    el("div", { class: data.pooled ? "columns" : "" },
      el("div", {}, data.pooled ? el("h3", {}, "Of the chosen segment") : null, figure("importance-plot", "Importance of each parameter", null, () => importanceFigure(group && group.importance)), words),
      data.pooled ? el("div", {}, el("h3", {}, "Over all segments"), figure("pooled-plot", "Importance of each parameter over all segments", null, () => importanceFigure(data.pooled)), el("p", { class: "soft small" }, explained(data.pooled))) : null));
  const options = all.map((i) => [i, data.axes[i].name]);
  const change = (which) => (value) => { pair[which] = Number(value); ["slice-plot-0", "slice-plot-1", "contour-plot"].forEach(draw); };
  section("pairs", "Slices and contours", "Slices",
    el("div", { class: "controls" }, choice("first parameter", options, pair[0], change(0)), choice("second parameter", options, pair[1], change(1))),
    el("div", { class: "columns" },
      figure("slice-plot-0", "Losses over the first parameter", null, () => sliceFigure(0)),
      figure("slice-plot-1", "Losses over the second parameter", null, () => sliceFigure(1))),
    figure("contour-plot", "Losses over both parameters", "Dots are trials. Surface, for pairs of the most important numbers: the loss that the same forest expects there, averaged over the other parameters of trials of the study (partial dependence, Friedman 2001). Far from any dot it is a guess.", contourFigure));
}

let metric = null;
function curvesFigure() {
  const found = group && group.curves;
  if (!found || !found.of) return "No trial has reported anything yet. A payload reports with trial.report(step, loss=...).";
  const own = found.metrics[metric];
  if (!own || !own.lines.length) return "No trial of this segment has reported this metric.";
  const traces = [], flip = data.direction === "maximize" ? -1 : 1;
  if (own.bands) {
    const b = own.bands, q = b.quantiles;
    traces.push(band(b.steps, q[0], q[4], "5\u201395 % of trials", faded("#888888", .2), true));
    traces.push(band(b.steps, q[1], q[3], "25\u201375 %", faded("#888888", .32), true));
    traces.push({ type: "scatter", mode: "lines", name: "median", x: b.steps, y: q[2], line: { color: shade("soft"), dash: "dot" }, hoverinfo: "text", text: b.trials.map((n, i) => `step ${b.steps[i]}: ${plural(n, "trial")}, median ${num(q[2][i])}`) });
  }
  const words = (line) => (i) => `trial ${line.trial} (${esc(line.state)})${line.loss === null ? "" : `, loss ${num(line.loss)}`}<br>step ${line.x[i]}: ${num(line.y[i])}`;
  const ended = own.lines.filter((l) => l.loss !== null).sort((x, y) => flip * (y.loss - x.loss));
  const others = own.lines.filter((l) => l.loss === null);
  const markers = own.lines.every((l) => l.x.length < 2) ? "markers" : "lines";
  if (others.length) traces.push({ type: "scatter", mode: markers, name: others.some((l) => l.state === "stopped") ? "stopped early, or not completed" : "not completed", ...joined(others, words), hoverinfo: "text", line: { color: SERIES[1], width: 1 }, opacity: .45 });
  const BINS = 6;
  for (let bin = 0; bin < BINS; bin++) {
    const part = ended.slice(Math.floor(ended.length * bin / BINS), Math.floor(ended.length * (bin + 1) / BINS));
    if (part.length) traces.push({ type: "scatter", mode: markers, ...joined(part, words), hoverinfo: "text", showlegend: false, line: { color: ramp(1 - (bin + .5) / BINS), width: 1.2 }, marker: { color: ramp(1 - (bin + .5) / BINS) }, opacity: own.bands ? .9 : .6 });
  }
  const best = ended[ended.length - 1];
  if (best) traces.push({ type: "scatter", mode: best.x.length > 1 ? "lines" : "markers", name: `best: trial ${best.trial}`, ...joined([best], words), hoverinfo: "text", line: { color: shade("ink"), width: 3 }, marker: { color: shade("ink"), size: 8 } });
  const tops = found.rungs.slice(-12);
  return {
    data: traces,
    layout: {
      height: 420, xaxis: axis("step", { rangemode: "tozero" }), margin: { l: 58, r: 14, t: tops.length ? 46 : 30, b: 46 },
      yaxis: lossAxis(esc(short(metric)), own.lines.flatMap((l) => l.y)),
      shapes: tops.map((r) => ({ type: "line", x0: r.step, x1: r.step, yref: "paper", y0: 0, y1: 1, line: { color: shade("soft"), width: 1.2, dash: "dash" } })),
      annotations: tops.map((r) => ({ x: r.step, yref: "paper", y: 1, yanchor: "top", xanchor: "left", showarrow: false, font: { size: 11, color: shade("soft") }, bgcolor: shade("card"), borderpad: 2,
        text: narrow() || tops.length > 4 ? `${r.gone_on}/${r.reached}` : `rung ${r.step}: ${r.gone_on} of ${r.reached} went on` })),
    },
  };
}

function curvesSection() {
  metric = data.metrics[0];
  const pick = data.metrics.length > 1 ? el("div", { class: "controls" }, choice("metric", data.metrics.map((m) => [m, m]), metric, (value) => { metric = value; draw("curves-plot"); })) : null;
  section("curves", "Learning curves", "Curves", pick,
    figure("curves-plot", "What the trials reported, step by step", "Better trials have the stronger colour." + (data.groups.some((g) => g.curves.rungs.length) ? " Upright dashed lines are rungs, at which trials pause and only some go on." : "") + " With very many trials: the spread of all, and the best ones.", curvesFigure));
}
