// Several objectives: what is best of them, two at a time.
let goalPair = [0, 1];
const goals = data.goals || [];

function goalAxis(which, values) {
  const goal = goals[goalPair[which]];
  return lossAxis(esc(short(goal.name)) + (goal.maximise ? " (maximised)" : ""), values);
}

function goalWords(trial, values, i) {
  return `trial ${trial[i]}<br>` + goals.map((goal, g) => `${esc(goal.name)}: ${esc(num(values[g][i]))}`).join("<br>");
}

function frontFigure() {
  const found = group && group.front, [a, b] = goalPair;
  if (!found || !found.trial.length) return "No trial has ended yet.";
  if (a === b) return "Choose two different objectives.";
  const traces = [], others = found.others, accent = shade("accent");
  if (others.trial.length) traces.push({
    type: "scatter", mode: "markers", name: "other trials", x: others.values[a], y: others.values[b], hoverinfo: "text",
    text: others.trial.map((_, i) => goalWords(others.trial, others.values, i)), marker: { color: shade("soft"), size: 6, opacity: .55, symbol: "circle-open" },
  });
  const order = found.trial.map((_, i) => i).sort((i, j) => found.values[a][i] - found.values[a][j]);
  const x = order.map((i) => found.values[a][i]), y = order.map((i) => found.values[b][i]);
  // Of two objectives, what the front dominates begins at a staircase.
  const two = goals.length === 2;
  traces.push({
    type: "scatter", mode: two ? "lines+markers" : "markers", name: "on the front", x, y, hoverinfo: "text",
    text: order.map((i) => goalWords(found.trial, found.values, i)), line: { shape: goals[a].maximise ? "vh" : "hv", color: accent, width: 1.6 },
    marker: { color: accent, size: 10, symbol: "diamond" },
  });
  const all = goalPair.map((g) => [...found.values[g], ...(others.values[g] || [])]);
  // A reference far away must not press the front into a corner.
  const seen = goalPair.map((g, which) => goals[g].reference !== null && all[which].some((v) => v >= goals[g].reference) && all[which].some((v) => v <= goals[g].reference));
  const line = { type: "line", line: { color: shade("soft"), width: 1, dash: "dash" } }, shapes = [];
  if (seen[0]) shapes.push({ ...line, x0: goals[a].reference, x1: goals[a].reference, y0: 0, y1: 1, yref: "paper" });
  if (seen[1]) shapes.push({ ...line, y0: goals[b].reference, y1: goals[b].reference, x0: 0, x1: 1, xref: "paper" });
  return { data: traces, layout: { height: 420, shapes, xaxis: goalAxis(0, all[0]), yaxis: goalAxis(1, all[1]) } };
}

function frontSection() {
  if (!goals.length) return;
  const names = goals.map((goal, g) => [g, goal.name]);
  const pick = (which) => (value) => { goalPair[which] = Number(value); draw("front-plot"); };
  const rows = el("div"), words = el("p", { class: "soft" });
  const fill = () => {
    const found = group && group.front;
    rows.replaceChildren();
    words.textContent = "";
    if (!found || !found.trial.length) return;
    const volume = found.hypervolume === null ? "" : ` Hypervolume up to the references: ${num(found.hypervolume)}.`;
    words.textContent = `${plural(found.trial.length, "trial")} of ${num(found.of)} that have ended: no other is as good in all objectives and better in one.${volume}`;
    const params = data.axes.map((one) => one.name);
    rows.append(table(["trial", ...goals.map((goal) => goal.name), ...params],
      found.trial.map((trial, i) => [trial, ...goals.map((_, g) => num(found.values[g][i])), ...params.map((name) => name in found.points[i] ? num(found.points[i][name]) : "\u2013")]),
      { numeric: [0, ...goals.map((_, g) => g + 1)], label: "trials on the front" }));
  };
  fill();
  redrawn.push(fill);
  section("front", "The front", "Front", words,
    goals.length > 2 ? el("div", { class: "controls" }, choice("horizontal", names, goalPair[0], pick(0)), choice("vertical", names, goalPair[1], pick(1))) : null,
    figure("front-plot", "The trials by two objectives, and the front", "Dashed: the references, the worst values that count, where trials lie on both sides of them.", frontFigure), rows);
}
