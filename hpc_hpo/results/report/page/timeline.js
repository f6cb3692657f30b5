// The allocation timeline: lanes of workers, what was idle, what was lost.
const HOURS = "hours since the study began";

function accounting() {
  const load = data.timeline.load, spent = load.worker_hours;
  const total = Object.values(spent).reduce((a, b) => a + b, 0);
  if (!total) return empty("No worker has run yet.");
  const parts = [...Object.keys(ENDS), "idle"].filter((name) => spent[name] / total >= .0005);
  const colour = (name) => name === "idle" ? "var(--idle)" : ENDS[name].colour;
  const fill = (name) => {
    const kind = ENDS[name];
    if (!kind || !kind.pattern) return `background:${colour(name)}`;
    const angle = { "/": 135, "\\": 45, x: 45, "|": 90, "-": 0 }[kind.pattern];
    return `background:repeating-linear-gradient(${angle}deg,${kind.colour} 0 5px,${kind.colour}99 5px 8px)`;
  };
  return el("div", {},
    el("div", { class: "bar", role: "img", "aria-label": "Where the workers' time went" }, parts.map((name) => el("span", { style: `width:${100 * spent[name] / total}%;${fill(name)}` }))),
    el("ul", { class: "legend" }, parts.map((name) => el("li", {}, el("i", { style: fill(name) }), `${name === "idle" ? "idle" : ENDS[name].words}: ${percent(spent[name] / total)}, ${amount(spent[name])} worker-hours`))));
}

function sliceWords(t, i) {
  const s = t.slices, name = t.ends[s.code[i]];
  const words = [`trial ${s.trial[i]}, slice ${s.slice[i]} of ${s.of[i]}`];
  if (s.segment[i] !== null) words.push(`segment ${s.segment[i]}`);
  words.push(`${ENDS[name].words}${s.reason[i] ? ` (${s.reason[i]})` : ""} after ${hours(s.end[i] - s.start[i])}`);
  if (s.lost[i]) words.push(`${hours(s.lost[i])} to do again`);
  if (name === "completed" && s.loss[i] !== null) words.push(`loss ${num(s.loss[i])}`);
  if (s.error[i]) words.push(short(s.error[i], 110));
  words.push(t.lanes[s.lane[i]]);
  return words;
}

// Stretches of lanes without a slice, but for those too short to be seen.
function idleGaps(lanes, slices, until) {
  const order = [...slices.start.keys()].sort((i, k) => slices.start[i] - slices.start[k]);
  const own = new Map(lanes.map(([, n]) => [n, []]));
  for (const i of order) if (own.has(slices.lane[i])) own.get(slices.lane[i]).push(i);
  const gaps = [];
  for (const [block, lane] of lanes) {
    let from = block.start;
    const upTo = (to) => { if (to - from > until / 1000) gaps.push({ block, lane, from, to }); };
    for (const i of own.get(lane)) {
      upTo(slices.start[i]);
      from = Math.max(from, slices.end[i]);
    }
    upTo(block.end);
  }
  return gaps;
}

function lanesFigure() {
  const t = data.timeline;
  if (!t.lane_count) return "No worker has run yet.";
  if (!t.lanes) return rowsFigure(t);
  const s = t.slices, traces = [];
  const held = t.blocks.filter((b) => b.lanes);
  const lanes = held.flatMap((b) => Array.from({ length: b.lanes }, (_, k) => [b, b.lane + k]));
  traces.push({
    type: "bar", orientation: "h", name: "idle", y: lanes.map(([, n]) => n), base: lanes.map(([b]) => b.start), x: lanes.map(([b]) => b.end - b.start), width: .92,
    marker: { color: shade("idle") }, hoverinfo: "skip",
  });
  // Of bars over each other plotly tells of any: what is idle is told by bars between the slices.
  const gaps = idleGaps(lanes, s, t.until);
  traces.push({
    type: "bar", orientation: "h", showlegend: false, y: gaps.map((g) => g.lane), base: gaps.map((g) => g.from), x: gaps.map((g) => g.to - g.from), width: .92,
    marker: { color: shade("idle") }, hoverinfo: "text", textposition: "none",
    hovertext: gaps.map((g) => `idle for ${hours(g.to - g.from)}: ${esc(t.lanes[g.lane])}<br>${g.block.ended ? `the block ended after ${hours(g.block.end - g.block.start)}${g.block.reason ? ` (${esc(g.block.reason)})` : ""}` : "the block is running"}`),
  });
  t.ends.forEach((name, code) => {
    const own = s.code.map((c, i) => c === code ? i : -1).filter((i) => i >= 0);
    if (!own.length) return;
    traces.push({
      type: "bar", orientation: "h", name: ENDS[name].words, y: own.map((i) => s.lane[i]), base: own.map((i) => s.start[i]), x: own.map((i) => s.end[i] - s.start[i]), width: .78,
      marker: { color: ENDS[name].colour, pattern: { shape: ENDS[name].pattern, fillmode: "overlay", size: 6, solidity: .35, fgcolor: shade("card") }, line: { width: .6, color: shade("card") } },
      hoverinfo: "text", hovertext: own.map((i) => sliceWords(t, i).map(esc).join("<br>")), textposition: "none", customdata: own, meta: "slices",
    });
  });
  const again = s.lost.map((v, i) => v ? i : -1).filter((i) => i >= 0);
  if (again.length) traces.push({
    type: "bar", orientation: "h", name: ENDS["to do again"].words, y: again.map((i) => s.lane[i]), base: again.map((i) => s.end[i] - Math.min(s.lost[i], s.end[i] - s.start[i])),
    x: again.map((i) => Math.min(s.lost[i], s.end[i] - s.start[i])), width: .78, textposition: "none", customdata: again, meta: "slices",
    marker: { color: ENDS["to do again"].colour, pattern: { shape: "/", fillmode: "overlay", size: 6, solidity: .35, fgcolor: shade("card") } },
    hoverinfo: "text", hovertext: again.map((i) => sliceWords(t, i).map(esc).join("<br>")),
  });
  const edges = (at) => ({ x: held.flatMap((b) => [at(b), at(b), null]), y: held.flatMap((b) => [b.lane - .5, b.lane + b.lanes - .5, null]) });
  traces.push({ type: "scatter", mode: "lines", name: "walltime", ...edges((b) => b.deadline), line: { color: shade("soft"), width: 1.4, dash: "dot" }, hoverinfo: "skip" });
  traces.push({ type: "scatter", mode: "lines", name: "block ended", ...edges((b) => b.ended ? b.end : null), line: { color: shade("ink"), width: 2 }, hoverinfo: "skip" });
  const tall = Math.min(Math.max(1500 / t.lanes.length, 6), 20);
  const many = held.length * 16 > tall * t.lanes.length;
  return {
    data: traces,
    layout: {
      barmode: "overlay", height: 130 + tall * t.lanes.length, xaxis: axis(HOURS, { range: [0, t.until * 1.01], side: "bottom" }),
      yaxis: axis(narrow() ? "" : tall * t.lanes.length < 200 ? "blocks" : "blocks, a lane for each worker", { range: [t.lanes.length - .5, -.5], showgrid: false, tickvals: many ? [] : held.map((b) => b.lane + b.lanes / 2 - .5), ticktext: many ? [] : held.map((b) => esc(b.id)) }),
      margin: { l: 46, r: 10, t: narrow() ? 90 : 50, b: 46 },
      shapes: held.slice(1).map((b) => ({ type: "line", xref: "paper", x0: 0, x1: 1, y0: b.lane - .5, y1: b.lane - .5, line: { color: shade("line"), width: 1 } })),
    },
    after: listen,
  };
}

function rowsFigure(t) {
  const r = t.rows;
  const middle = r.edges.slice(1).map((e, i) => (e + r.edges[i]) / 2);
  const names = r.names.map(([a, b]) => a === b ? `block ${esc(a)}` : `blocks ${esc(a)} to ${esc(b)}`);
  return {
    data: [{
      type: "heatmap", x: middle, y: names.map((_, i) => i), z: r.share, zmin: 0, zmax: 1, colorscale: "Cividis", hoverongaps: false,
      hoverinfo: "text", text: r.share.map((row, i) => row.map((v, k) => v === null ? "" : `${names[i]}, hour ${num(middle[k], 3)}: ${percent(v)} busy`)),
      colorbar: { title: { text: "busy", side: "right" }, tickformat: ".0%", thickness: 10, outlinewidth: 0 },
    }],
    layout: {
      height: Math.max(260, 110 + Math.min(14 * names.length, 700)), margin: { l: 46, r: 10, t: 12, b: 46 }, xaxis: axis(HOURS),
      yaxis: axis(r.per_row > 1 ? `rows of ${r.per_row} blocks, in order of their start` : "blocks, in order of their start", { autorange: "reversed", showgrid: false, showticklabels: names.length <= 40, tickvals: names.map((_, i) => i), ticktext: r.names.map(([a]) => esc(a)) }),
    },
  };
}

function loadFigure() {
  const load = data.timeline.load;
  if (!data.timeline.lane_count) return "No worker has run yet.";
  const x = load.edges, twice = (values) => [...values, values[values.length - 1]];
  const traces = Object.entries(load.busy).map(([name, values]) => ({
    type: "scatter", mode: "lines", name: ENDS[name].words, x, y: twice(values), stackgroup: "busy", line: { shape: "hv", width: 0, color: ENDS[name].colour }, hoverinfo: "skip",
    fillcolor: ENDS[name].colour, fillpattern: { shape: ENDS[name].pattern, size: 6, solidity: .4, fillmode: "replace", fgcolor: ENDS[name].colour },
  }));
  const busy = load.held.map((_, i) => Object.values(load.busy).reduce((sum, values) => sum + values[i], 0));
  traces.push({
    type: "scatter", mode: "lines", name: "held by blocks", x, y: twice(load.held), line: { shape: "hv", color: shade("ink"), width: 1.8 }, hoverinfo: "text",
    text: twice(load.held.map((h, i) => `${num(h, 4)} workers held, ${num(busy[i], 4)} busy`)),
  });
  return { data: traces, layout: { height: 300, hovermode: "x unified", margin: { l: 58, r: 10, t: narrow() ? 84 : 48, b: 46 }, xaxis: axis(HOURS, { range: [0, data.timeline.until * 1.01] }), yaxis: axis("workers", { rangemode: "tozero" }) } };
}

const walk = { at: -1, panel: null };
function tell(i) {
  const t = data.timeline;
  walk.at = i;
  walk.panel.textContent = sliceWords(t, i).join(" \u00b7 ");
}

function listen(holder) {
  if (holder.dataset.listens) return;
  holder.dataset.listens = "yes";
  const heed = (event) => {
    const point = event.points.find((p) => p.data.meta === "slices");
    if (point) tell(point.customdata);
  };
  holder.on("plotly_hover", heed);
  holder.on("plotly_click", heed);
}

function timelineSection() {
  const t = data.timeline;
  const node = section("timeline", "Allocation timeline", "Timeline", accounting());
  if (!t.lane_count) return;
  const open = t.open ? ` ${plural(t.open, "slice")} at work now will appear when they have ended.` : "";
  const lanes = t.lanes
    ? "Every worker of every block is a lane. Grey is idle: a worker that was held and ran nothing. Striped is work that was lost with its node or block and has to be done again."
    : `${num(t.lane_count)} lanes with ${num(t.slice_count)} slices are too many to be told apart: each row shows the share of its workers that was busy.`;
  node.append(el("p", { class: "soft" }, lanes + open), figure("timeline-plot", "What each worker did, over time", null, lanesFigure));
  if (t.lanes && t.slices.trial.length) {
    walk.panel = el("div", { class: "panel", id: "slice-panel", role: "status", "aria-live": "polite" }, "Point at a slice, or step through them with the buttons.");
    const move = (by) => () => tell((walk.at + by + t.slices.trial.length) % t.slices.trial.length);
    node.append(el("div", { class: "walker" }, el("button", { type: "button", "aria-label": "previous slice", onclick: move(-1) }, "\u2039"), el("button", { type: "button", "aria-label": "next slice", onclick: move(1) }, "\u203a"), walk.panel));
  }
  node.append(el("h3", {}, "Workers over time"),
    figure("load-plot", "Busy and held workers over time", "What lies between the stack and the line was idle.", loadFigure));
}
