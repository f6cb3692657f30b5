// Failures, segments, and what it takes to run the study again.
function failuresSection() {
  const found = data.failures;
  const node = section("failures", "Failures", "Failures");
  if (!found.count) {
    node.append(empty("No slice has failed or was lost."));
    return;
  }
  node.append(el("p", { class: "soft" }, `Failed and lost slices by their cause: ${plural(found.count, "group")}${found.count > found.groups.length ? `, of which the first ${found.groups.length} are here` : ""}. Numbers in messages that differ within a group are shown as #.`));
  for (const g of found.groups) {
    const heads = `${plural(g.slices, "slice")} of ${plural(g.trial_count, "trial")}`;
    const given = g.given_up ? `, ${g.given_up} given up` : "";
    const lost = g.lost_hours ? `, ${amount(g.lost_hours)} worker-hours to do again` : "";
    node.append(el("details", {},
      el("summary", {}, el("b", {}, `${g.end}: ${short(g.cause, 200)}`), el("br"), el("span", { class: "soft small" }, `${g.kind} \u00b7 ${heads}${given}${lost}`)),
      el("p", { class: "small" }, `Trials: ${g.trials.join(", ")}${g.trial_count > g.trials.length ? ", \u2026" : ""}`,
        g.hosts.length ? el("br") : null, g.hosts.length ? `Hosts: ${g.hosts.map(([h, n]) => `${h} (${n})`).join(", ")}${g.host_count > g.hosts.length ? `, and ${g.host_count - g.hosts.length} more` : ""}` : null),
      g.examples.map((e) => el("div", {}, el("h3", {}, `Trial ${e.trial}, slice ${e.slice}${e.host ? ` on ${e.host}` : ""}`), e.message ? el("p", { class: "small" }, e.message) : null,
        e.texts.map((t) => [el("p", { class: "soft small" }, t.title + (t.cut ? ", its last part" : "")), el("pre", { tabindex: 0 }, t.text)])))));
  }
}

const heat = { x: null, y: null, z: "loss" };
const HEAT = [["loss", "best loss"], ["completed", "completed trials"], ["failed", "failed trials"]];

function heatFigure() {
  const rows = data.segments.rows, has = (r) => r.values[heat.x] !== undefined && r.values[heat.y] !== undefined;
  const sorted = (name) => [...new Set(rows.filter(has).map((r) => r.values[name]))].sort((a, b) => a - b);
  const xs = sorted(heat.x), ys = sorted(heat.y);
  const z = ys.map(() => xs.map(() => null)), text = ys.map(() => xs.map(() => ""));
  const less = data.direction === "maximize" ? (a, b) => a > b : (a, b) => a < b;
  for (const r of rows.filter(has)) {
    const i = ys.indexOf(r.values[heat.y]), k = xs.indexOf(r.values[heat.x]), value = r[heat.z];
    // Where further values tell segments apart, the best of them stands for all.
    if (value === null || (z[i][k] !== null && !less(value, z[i][k]))) continue;
    z[i][k] = value;
    text[i][k] = `${esc(r.segment)}<br>${esc(heat.x)} = ${num(xs[k])}, ${esc(heat.y)} = ${num(ys[i])}<br>${HEAT.find((h) => h[0] === heat.z)[1]}: ${num(value)}`;
  }
  const logs = heat.z === "loss" && lossType(z.flat()) === "log";
  const colours = logs ? z.map((row) => row.map((v) => v === null ? null : Math.log10(v))) : z;
  const ticks = (values) => values.length <= 30 ? { tickvals: values.map((_, i) => i), ticktext: values.map((v) => num(v)) } : { tickvals: values.map((_, i) => i).filter((i) => i % Math.ceil(values.length / 15) === 0), ticktext: values.filter((_, i) => i % Math.ceil(values.length / 15) === 0).map((v) => num(v)) };
  const few = xs.length * ys.length <= 120 && !(narrow() && xs.length > 6);
  return {
    data: [{
      type: "heatmap", x: xs.map((_, i) => i), y: ys.map((_, i) => i), z: colours, xgap: 1.5, ygap: 1.5, hoverongaps: false, hoverinfo: "text", text,
      colorscale: heat.z === "loss" && data.direction !== "maximize" ? scale(false) : scale(true),
      colorbar: { title: { text: (logs ? "log10 of the " : "") + HEAT.find((h) => h[0] === heat.z)[1], side: "right" }, thickness: 10, outlinewidth: 0 },
    }],
    layout: {
      height: Math.min(Math.max(150 + 38 * ys.length, 240), 620), margin: { l: 58, r: 10, t: 12, b: 46 }, xaxis: axis(esc(short(heat.x)), { showgrid: false, ...ticks(xs) }), yaxis: axis(esc(short(heat.y)), { showgrid: false, ...ticks(ys) }),
      annotations: few ? ys.flatMap((_, i) => xs.map((_, k) => ({ x: k, y: i, text: z[i][k] === null ? "" : num(z[i][k], narrow() ? 2 : 3), showarrow: false, font: { size: 11, color: "#ffffff" }, bgcolor: "rgba(0,0,0,.42)", borderpad: 2 }))) : [],
    },
  };
}

function spark(history) {
  const line = svg("svg", { viewBox: "0 0 100 44", preserveAspectRatio: "none", "aria-hidden": "true" });
  const low = history.loss.reduce((a, b) => Math.min(a, b), Infinity), high = history.loss.reduce((a, b) => Math.max(a, b), -Infinity);
  const y = (v) => high > low ? (40 - 36 * (v - low) / (high - low)).toFixed(1) : "22";
  const x = (n) => (100 * n / Math.max(history.count, 1)).toFixed(1);
  const d = history.loss.map((v, i) => i ? `H${x(history.n[i])}V${y(v)}` : `M${x(history.n[i])} ${y(v)}`).join("") + "H100";
  line.append(svg("path", { d }));
  return line;
}

function segmentsSection() {
  const found = data.segments;
  if (!found) return;
  const node = section("segments", "Segments", "Segments");
  const numeric = found.numeric;
  if (numeric.length >= 2) {
    [heat.x, heat.y] = [numeric[1], numeric[0]];
    const again = () => draw("heat-plot");
    const pick = (key) => (value) => { heat[key] = value; again(); };
    const options = numeric.map((n) => [n, n]);
    node.append(el("h3", {}, "Over two of their values"), el("div", { class: "controls" }, choice("across", options, heat.x, pick("x")), choice("up", options, heat.y, pick("y")), choice("colour", HEAT, heat.z, pick("z"))),
      figure("heat-plot", "A value of every segment over two of its numbers", null, heatFigure));
  }
  const multiples = found.rows.filter((r) => r.history);
  if (multiples.length) {
    const drawn = new Set(data.groups.map((g) => g.name));
    const buttons = multiples.map((r) => el("button", { type: "button", "data-segment": r.segment, disabled: !drawn.has(r.segment), onclick: () => setGroup(r.segment) },
      el("b", { title: r.segment }, r.segment), el("span", { class: "soft small" }, `${r.loss === null ? "no loss" : num(r.loss, 4)} \u00b7 ${plural(r.history.count, "trial")}`), spark(r.history)));
    const mark = () => buttons.forEach((b) => b.setAttribute("aria-pressed", String(group !== null && b.dataset.segment === group.name)));
    mark();
    redrawn.push(mark);
    node.append(el("h3", {}, "Their histories"), el("p", { class: "soft small" }, "The best loss so far over the trials of each, every one on its own scale. Choose one to see it in all plots above."),
      el("ul", { class: "multiples" }, buttons.map((b) => el("li", {}, b))));
  }
  const heads = ["segment", ...found.values, "state", "trials", "failed", "best loss", "by trial", "problem"];
  const at = found.values.length;
  const most = 1000;
  node.append(el("div", {}, el("h3", {}, "All segments"), found.rows.length > most ? el("p", { class: "soft small" }, `The first ${most} of ${num(found.rows.length)}; hpc-hpo segment list shows all.`) : null,
    table(heads, found.rows.slice(0, most).map((r) => [r.segment, ...found.values.map((v) => r.values[v] === undefined ? "" : num(r.values[v])), r.state, `${num(r.completed)}${r.budget === null ? "" : ` of ${num(r.budget)}`}`, num(r.failed), r.loss === null ? "\u2013" : num(r.loss), r.trial === null ? "\u2013" : r.trial, r.problem || ""]),
      { numeric: [...found.values.map((v, i) => found.numeric.includes(v) ? i + 1 : -1), at + 2, at + 3, at + 4, at + 5], label: "segments" })));
}

function bytes(count) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (count >= 1000 && unit < units.length - 1) { count /= 1000; unit += 1; }
  return `${num(count, 3)} ${units[unit]}`;
}

function reproduceSection() {
  const r = data.reproduce;
  const optimizer = r.optimizer && typeof r.optimizer === "object" ? r.optimizer.name : r.optimizer;
  const versions = Object.entries(r.versions).map(([name, text]) => `${name} ${text}`).join(", ");
  const facts = [["site", r.site], ["seed", r.seed], ["optimiser", optimizer], ["versions", versions], ["steered on", r.host], ["runs", r.runs]].filter(([, v]) => v !== null && v !== undefined && v !== "");
  const node = section("reproduce", "To run it again", "Reproduce",
    el("p", { class: "soft" }, "The frozen study with this seed, at this site and with these versions, and the inputs with these checksums. Points that an optimiser learns depend on the order in which trials end, which no two runs share."),
    table(["what", ""], facts.map(([name, value]) => [name, num(value)]), { label: "facts" }));
  node.append(el("details", {}, el("summary", {}, el("b", {}, "study.yaml")), r.study ? el("pre", { tabindex: 0 }, r.study) : empty("The study has not been frozen yet.")));
  const m = r.manifest;
  if (m && m.problem) node.append(el("p", {}, m.problem));
  if (m && m.files && m.files.length) {
    node.append(el("details", {}, el("summary", {}, el("b", {}, "Inputs"), ` ${plural(m.count, "file")}, ${bytes(m.bytes)}${m.count > m.files.length ? `; the first ${m.files.length} are here, manifest.json has all` : ""}`),
      table(["input", "file", "source", "size", "sha256"], m.files.map((f) => [f.segment ? `${f.input} of ${f.segment}` : f.input, f.target, f.source, bytes(f.size), el("code", {}, f.sha256)]), { numeric: [3], label: "inputs" })));
  } else if (!m) node.append(el("p", { class: "soft small" }, "No inputs were staged."));
}
