// What a simulation knows beyond a study: all parts of the workers' time, and the queue.
const PARTS = {
  trials: "#009E73", checkpoints: "#56B4E9", "start-up": "#0072B2", "waiting for points": "#F0E442",
  "ends of blocks": "#888888", "work lost": "#CC79A7", "failed attempts": "#D55E00", "dead nodes": "#333333", "nothing left to do": "#BBBBBB",
};

function queueFigure() {
  const jobs = data.simulated.jobs;
  if (!jobs.hours.length) return "No job was submitted.";
  const line = (name, colour, dash) => ({
    type: "scatter", mode: "lines", name, x: [...jobs.hours, Math.max(data.timeline.until, jobs.hours[jobs.hours.length - 1])], y: [...jobs[name], jobs[name][jobs[name].length - 1]],
    line: { shape: "hv", color: colour, dash, width: 2 },
  });
  return {
    data: [line("running", SERIES[2], "solid"), line("waiting", SERIES[1], "dash")],
    layout: { height: 260, hovermode: "x unified", margin: { l: 58, r: 10, t: 48, b: 46 }, xaxis: axis(HOURS, { range: [0, data.timeline.until * 1.01] }), yaxis: axis("jobs", { rangemode: "tozero" }) },
  };
}

function simulatedSection() {
  const known = data.simulated;
  const parts = known.parts.filter(([, share]) => share >= .0001);
  section("simulated", "Simulation", "Simulation",
    el("p", { class: "soft" }, "Nothing was submitted: the steering loop, the optimiser and the queue's limits are the real ones, the jobs, workers and trials are modelled."),
    el("div", { class: "bar", role: "img", "aria-label": "What became of the workers' time" }, parts.map(([name, share]) => el("span", { style: `width:${100 * share}%;background:${PARTS[name]}` }))),
    el("ul", { class: "legend" }, parts.map(([name, share, worked]) => el("li", {}, el("i", { style: `background:${PARTS[name]}` }), `${name}: ${percent(share)}, ${amount(worked)} worker-hours`))),
    el("p", { class: "soft" }, `A free worker waited for its next trial ${num(Number(known.wait[0].toPrecision(3)))} s (median), ${num(Number(known.wait[1].toPrecision(3)))} s (p99).`),
    el("h3", {}, "Jobs over time"), figure("queue-plot", "Jobs that waited in the queue and that ran, over time", null, queueFigure));
}
