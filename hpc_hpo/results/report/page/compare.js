// Studies over each other.
// A key path may be broken after its dots.
function breakable(key) {
  return el("span", {}, key.split(/(?<=\.)/).flatMap((part) => [part, el("wbr")]));
}

const compared = { by: "n", segment: null };

function compareGroups(study) {
  return study.groups.find((g) => g.name === compared.segment);
}

function compareFigure() {
  const traces = [];
  data.studies.forEach((study, i) => {
    const own = compareGroups(study);
    if (!own || !own.history.count) return;
    const h = own.history, by = compared.by;
    const colour = SERIES[i % SERIES.length];
    traces.push({
      type: "scatter", mode: "lines+markers", name: esc(short(study.label)), x: [...h.best[by], h.end[by]], y: [...h.best.loss, h.best.loss[h.best.loss.length - 1]],
      line: { shape: "hv", width: 2.4, color: colour, dash: DASHES[i % DASHES.length] }, marker: { size: [...h.best.n.map(() => 7), 0], color: colour, symbol: i % 8 },
      hoverinfo: "text", text: [...h.best.trial.map((t, k) => `${esc(study.label)}: ${num(h.best.loss[k], 6)}<br>trial ${t}, after ${hours(h.best.hours[k])}, ${amount(h.best.node_hours[k])} node-hours`), ""],
    });
  });
  if (!traces.length) return "No trial has a loss yet.";
  return { data: traces, layout: { height: 420, xaxis: axis(AXES[compared.by], { rangemode: "tozero" }), yaxis: lossAxis("best loss so far", traces.flatMap((t) => t.y)) } };
}

function comparePage() {
  const studies = data.studies;
  head(studies.map((s) => s.label).join(" \u00b7 "), null, [`${plural(studies.length, "study").replace("studys", "studies")}, report made ${when(data.made)}`]);
  const names = [...new Set(studies.flatMap((s) => s.groups.map((g) => g.name)))];
  compared.segment = names[0] === undefined ? null : names[0];
  const directions = new Set(studies.map((s) => s.direction));
  const segments = names.length > 1 ? choice("segment", names.map((n, i) => [i, n === null ? "(the study)" : n]), 0, (value) => { compared.segment = names[value]; draw("compare-plot"); fill(); }) : null;
  section("compare", "Best loss so far", "History", directions.size > 1 ? el("p", {}, "These studies do not agree in their direction: one minimises its loss, another maximises it.") : null,
    el("div", { class: "controls" }, toggle("Horizontal axis", SWITCH, "n", (value) => { compared.by = value; draw("compare-plot"); }), segments),
    figure("compare-plot", "The best loss so far of each study", null, compareFigure));
  const hold = el("div");
  const fill = () => {
    const best = studies.map((s) => (compareGroups(s) || {}).best);
    const parameters = [...new Set(best.flatMap((b) => b ? Object.keys(b.point) : []))];
    const row = (name, get) => [name, ...studies.map((s, i) => get(s, best[i]))];
    hold.replaceChildren(table(["", ...studies.map((s) => s.label)], [
      row("best loss", (s, b) => b ? num(b.loss, 6) : "\u2013"), row("by trial", (s, b) => b ? b.trial : "\u2013"),
      ...parameters.map((p) => row(p, (s, b) => b && p in b.point ? num(b.point[p]) : "\u2013"))], { label: "best points" }));
  };
  fill();
  section("points", "Best points", "Best points", hold);
  const numbers = [
    ["state", (s) => s.facts.state], ["trials", (s) => num(s.facts.trials.total)], ["completed", (s) => num(s.facts.trials.completed)], ["failed", (s) => num(s.facts.trials.failed)],
    ["node-hours", (s) => amount(s.node_hours)], ["worker-hours held", (s) => amount(s.facts.allocated_worker_seconds / 3600)], ["workers busy", (s) => percent(s.facts.utilisation)],
    ["worker-hours to do again", (s) => amount(s.facts.lost_worker_seconds / 3600)], ["worker-hours idle", (s) => amount(s.worker_hours.idle)], ["blocks", (s) => num(s.facts.blocks.total)],
    ["slices lost", (s) => num(s.facts.slices.lost)], ["time steered", (s) => hours(s.facts.elapsed_seconds / 3600)], ["steering's CPU time", (s) => hours(s.facts.steering_cpu_seconds / 3600)], ["folder", (s) => s.dir],
  ];
  section("numbers", "Numbers", "Numbers", table(["", ...studies.map((s) => s.label)], numbers.map(([name, get]) => [name, ...studies.map(get)]), { label: "numbers" }));
  const differ = data.settings.filter((r) => r.differs), same = data.settings.filter((r) => !r.differs);
  const rows = (some) => some.map((r) => ({ mark: r.differs ? "differs" : null, cells: [breakable(r.key), ...r.values.map((v) => v === null ? "\u2013" : v)] }));
  const heads = ["setting", ...studies.map((s) => s.label)];
  section("settings", "Settings", "Settings", differ.length ? table(heads, rows(differ), { label: "settings that differ" }) : empty("All settings are the same."),
    el("details", {}, el("summary", {}, `${plural(same.length, "setting")} that are the same`), table(heads, rows(same), { label: "settings that are the same" })));
}
