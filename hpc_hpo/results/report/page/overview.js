// The head of the page, the numbers, the best point and how it was reached.
const AXES = { n: "trials with a loss", hours: "hours since the study began", node_hours: "node-hours" };
const SWITCH = [["n", "by trial"], ["hours", "by wall time"], ["node_hours", "by node-hours"]];
let group = null;

const CHIPS = { running: "plain", done: "good", failed: "bad", stopped: "bad", new: "plain" };

function head(title, state, lines) {
  document.title = `${title} \u00b7 hpc_hpo`;
  const themes = toggle("Colours", [["auto", "auto"], ["light", "light"], ["dark", "dark"]], "auto", (value) => {
    if (value === "auto") delete root.dataset.theme; else root.dataset.theme = value;
    drawAll();
  });
  document.getElementById("top").append(
    el("div", {}, el("p", { class: "eyebrow" }, data.kind === "compare" ? "Studies compared" : "Study"),
      el("h1", {}, title, state ? el("span", { class: "chip " + (CHIPS[state] || "plain") }, state) : null),
      lines.map((line) => el("p", { class: "soft small where" }, line))),
    el("div", { class: "controls" }, themes));
}

function groupName(one) {
  return one.name === null ? "the study" : one.name;
}

function pointList(point) {
  return el("dl", { class: "point" }, Object.entries(point).map(([name, value]) =>
    el("div", {}, el("dt", {}, name), el("dd", {}, num(value)))));
}

function overview() {
  const facts = data.facts, trials = facts.trials;
  const counts = ["completed", "stopped", "failed", "running", "paused", "asked"].filter((s) => trials[s]).map((s) => `${num(trials[s])} ${s}`);
  const of = trials.budget === null ? "" : ` of ${num(trials.budget)}`;
  const known = data.groups.filter((one) => one.best);
  const segments = data.segments;
  const front = !segments && data.groups.length ? data.groups[0].front : null;
  const bestTile = front
    ? tile("On the front", plural(front.trial.length, "trial"), front.hypervolume === null ? "of several objectives" : `hypervolume ${num(front.hypervolume)}`)
    : segments
    ? tile("Segments", num(segments.rows.length), segmentWords(facts.segments))
    : tile("Best loss", known.length ? num(known[0].best.loss) : "\u2013", known.length ? `trial ${known[0].best.trial}` : "no trial has a loss yet");
  const lost = facts.lost_worker_seconds / 3600, held = facts.allocated_worker_seconds / 3600;
  section("overview", "Overview", "Overview",
    el("dl", { class: "tiles" },
      bestTile,
      tile("Trials", num(trials.total) + of, counts.join(", ") || "none yet"),
      tile("Workers busy", percent(facts.utilisation), held ? `of ${amount(held)} worker-hours` : "no block has begun"),
      tile("Work lost", held ? percent(lost / held) : "\u2013", held ? `${amount(lost)} worker-hours to do again` : null),
      tile("Node-hours", amount(data.node_hours), plural(facts.blocks.total, "block")),
      tile("Time steered", hours(facts.elapsed_seconds / 3600), `${plural(facts.runs, "run")}, ${hours(facts.steering_cpu_seconds / 3600)} of CPU time`)));
}

function segmentWords(counts) {
  if (!counts) return "";
  return ["done", "target", "running", "new", "stopped", "failed"].filter((s) => counts[s])
    .map((s) => `${num(counts[s])} ${s === "target" ? "at their target" : s}`).join(", ");
}

function lineOf(best) {
  return el("div", {}, el("h3", {}, "Its line of parents"),
    el("p", { class: "soft small" }, "Each goes on from the checkpoint of the one before: up to which step it was trained, and with which values."),
    table(["trial", "steps", "values"], best.line.map((t) => [t.trial, `${num(t.from)} to ${num(t.to)}`,
      Object.entries(t.changed).map(([name, value]) => `${name} = ${num(value, 4)}`).join(", ")]), { numeric: [0], label: "line of parents" }));
}

function bestPoint() {
  const node = el("div");
  const fill = () => {
    const best = group && group.best;
    node.replaceChildren();
    if (!best) {
      node.append(empty(data.facts.trials.failed ? "No trial has a loss: every one that ended has failed. The failures are below." : "No trial has a loss yet."));
      return;
    }
    const more = best.like === null ? "" : `, a point taken from trial ${best.like} of a similar segment`;
    node.append(
      el("p", {}, group.name === null ? null : `Segment ${group.name}: `, goals.length ? `Of the first objective, ${goals[0].name}: ` : "Loss ", el("b", {}, num(best.loss, 6)), ` by trial ${best.trial} (seed ${best.seed})${more}.`),
      pointList(best.point),
      best.line.length ? lineOf(best) : null,
      el("div", { class: "columns" },
        el("div", {}, el("h3", {}, "How it was reached"),
          el("p", { class: "soft small" }, best.improvements > best.steps.length
            ? `The last ${best.steps.length} of ${best.improvements} improvements, with what each changed of the one before.`
            : "Each improvement, with what it changed of the one before."),
          table(["trial", "loss", "changed"], [...best.steps].reverse().map((step) => [step.trial, num(step.loss),
            Object.entries(step.changed).map(([name, value]) => `${name} = ${num(value, 4)}`).join(", ")]), { numeric: [0, 1], label: "improvements" })),
        el("div", {}, el("h3", {}, `Slices of trial ${best.trial}`),
          el("p", { class: "soft small" }, "Stretches of the trial on one worker; times since the study began."),
          table(["slice", "from", "to", "ended", "where"], best.slices.map((s) => [s.number, s.start === null ? "\u2013" : hours(s.start), s.end === null ? "\u2013" : hours(s.end),
            (s.how || "at work") + (s.reason ? ` (${s.reason})` : ""), s.block ? `block ${s.block}, ${s.host || ""}` : "\u2013"]), { numeric: [0, 1, 2], label: "slices of the best trial" }))));
  };
  fill();
  redrawn.push(fill);
  return section("best", "Best point", "Best point", node);
}

let historyBy = "n", historyOf = 0;
function historyFigure() {
  const h = group && (group.histories ? group.histories[historyOf] : group.history);
  if (!h || !h.count) return "No trial has a loss yet.";
  const by = historyBy, traces = [];
  const accent = shade("accent"), grey = shade("soft");
  if (h.dots) {
    traces.push({
      type: "scatter", mode: "markers", name: "trials", x: h.dots[by], y: h.dots.loss, hoverinfo: "text",
      text: h.dots.trial.map((t, i) => `trial ${t}: loss ${esc(num(h.dots.loss[i]))}`), marker: { color: grey, size: 6, opacity: .55, symbol: "circle-open" },
    });
  } else if (h.bands) {
    const q = h.bands.quantiles, x = h.bands[by];
    traces.push(band(x, q[0], q[4], "5\u201395 % of trials", faded("#888888", .2), true));
    traces.push(band(x, q[1], q[3], "25\u201375 %", faded("#888888", .32), true));
    traces.push({ type: "scatter", mode: "lines", name: "median", x, y: q[2], line: { color: grey, width: 1.3, dash: "dot" }, hoverinfo: "skip" });
  }
  const x = [...h.best[by], h.end[by]], y = [...h.best.loss, h.best.loss[h.best.loss.length - 1]];
  traces.push({
    type: "scatter", mode: "lines+markers", name: "best so far", x, y, line: { shape: "hv", color: accent, width: 2.6 }, hoverinfo: "text",
    marker: { size: [...h.best.n.map(() => 7), 0], color: accent, symbol: "diamond" },
    text: [...h.best.trial.map((t, i) => `best so far: ${esc(num(h.best.loss[i], 6))}<br>trial ${t}, after ${hours(h.best.hours[i])}, ${amount(h.best.node_hours[i])} node-hours`), ""],
  });
  const all = [...h.best.loss, ...(h.dots ? h.dots.loss : h.bands ? h.bands.quantiles[4] : [])];
  return { data: traces, layout: { height: 380, xaxis: axis(AXES[by], { rangemode: "tozero" }), yaxis: lossAxis(lossTitle(historyOf), all) } };
}

function historySection() {
  section("history", "Optimisation history", "History",
    el("div", { class: "controls" }, toggle("Horizontal axis", SWITCH, historyBy, (value) => { historyBy = value; draw("history-plot"); }),
      goals.length ? choice("objective", goals.map((goal, g) => [g, goal.name]), historyOf, (value) => { historyOf = Number(value); draw("history-plot"); }) : null),
    figure("history-plot", "Losses of the trials and the best so far", "Every trial where it ended, and the best loss so far. With very many trials: the spread of the losses in equal stretches of trials." + (data.facts.trials.stopped ? " Trials that were stopped early are not here: their losses at a rung are no match for those at the end. Learning curves show them." : ""), historyFigure));
}
