// Parallel coordinates, drawn by hand: plotly's need WebGL, do not print, and have no keyboard.
const MOST_LINES = 1200;
function parallel() {
  const holder = el("div", { class: "parallel", tabindex: 0, role: "region", "aria-label": "parallel coordinates" });
  const told = el("p", { class: "small soft", "aria-live": "polite" });
  let kept = [];

  function axesOf(points) {
    const found = drawable().filter((n) => points.columns[n].some((c) => c !== null)).map((n) => {
      const a = data.axes[n], codes = points.columns[n];
      if (a.kind === "category") return { name: a.name, codes, low: -.4, high: a.categories.length - .6, map: (v) => v, back: (v) => v, ticks: a.categories.map((c, i) => [i, short(c, 12)]) };
      return { name: a.name, codes, ...numbers(codes, a.log) };
    });
    found.push({ name: lossTitle(), codes: points.loss, ...numbers(points.loss, lossType(points.loss) === "log") });
    return found;
  }

  function numbers(codes, log) {
    const known = codes.filter((c) => c !== null && (!log || c > 0));
    const map = log ? Math.log10 : (v) => v, back = log ? (v) => 10 ** v : (v) => v;
    let low = map(known.reduce((a, b) => Math.min(a, b), Infinity)), high = map(known.reduce((a, b) => Math.max(a, b), -Infinity));
    if (!(high > low)) { low -= .5; high += .5; }
    const whole = known.every(Number.isInteger);
    const at = [...new Set([0, .25, .5, .75, 1].map((t) => back(low + t * (high - low))).map((v) => whole ? Math.round(v) : v))];
    const ticks = at.map((v) => [Math.min(Math.max(map(v), low), high), num(v, 3)]);
    return { low, high, map, back, ticks };
  }

  function fill() {
    holder.replaceChildren();
    const points = group && group.points;
    if (!points || !points.trial.length) {
      holder.append(empty("No trial has a loss yet."));
      told.textContent = "";
      return;
    }
    const axes = axesOf(points);
    kept = axes.map((a) => [a.low, a.high]);
    const space = printing ? 660 : holder.clientWidth || 800;
    const width = Math.max(space, 96 * axes.length), height = 380, top = 44, bottom = 24;
    const gap = (width - 120) / Math.max(axes.length - 1, 1);
    const x = (i) => 56 + i * gap;
    const y = (a, v) => height - bottom - (v - a.low) / (a.high - a.low) * (height - top - bottom);
    const order = [...points.trial.keys()].sort((p, q) => points.place[q] - points.place[p]).slice(-MOST_LINES);
    const paths = order.map((p) => {
      let d = "", pen = false;
      axes.forEach((a, i) => {
        const code = a.codes[p];
        if (code === null || !Number.isFinite(a.map(code))) { pen = false; return; }
        const at = `${x(i).toFixed(1)} ${y(a, a.map(code)).toFixed(1)}`;
        // A lone value between two absent ones is a short dash.
        d += pen ? `L${at}` : `M${at}h.01M${at}`;
        pen = true;
      });
      const place = points.place[p];
      const line = svg("path", { d, stroke: ramp(place), "stroke-opacity": (order.length > 250 ? .3 : .5) + .5 * Math.pow(1 - place, 8), "data-trial": points.trial[p] });
      if (place === 0) line.setAttribute("style", "stroke-width:2.6");
      return line;
    });
    const drawing = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}` }, ...paths);

    function choose() {
      let count = 0, best = null;
      order.forEach((p, k) => {
        const on = axes.every((a, i) => {
          const all = kept[i][0] <= a.low && kept[i][1] >= a.high;
          if (all) return true;
          const v = a.codes[p] === null ? NaN : a.map(a.codes[p]);
          return v >= kept[i][0] - 1e-12 && v <= kept[i][1] + 1e-12;
        });
        paths[k].setAttribute("class", on ? "" : "off");
        if (on) { count += 1; best = p; }
      });
      const shown = points.of > order.length ? `${num(order.length)} of ${num(points.of)} trials, the best half of them and others by chance; ` : "";
      const words = best === null ? "" : ` The best of them is trial ${points.trial[best]} with loss ${num(points.loss[best])}.`;
      told.textContent = `${shown}${num(count)} of ${plural(order.length, "line")} within the marks.${words}`;
    }

    axes.forEach((a, i) => {
      const part = svg("g", {});
      part.append(svg("line", { class: "axis", x1: x(i), x2: x(i), y1: top, y2: height - bottom }));
      const name = svg("text", { class: "name", x: x(i), y: 18, "text-anchor": "middle" });
      name.textContent = short(a.name, Math.max(8, Math.floor(gap / 8)));
      const full = svg("title", {});
      full.textContent = a.name;
      name.append(full);
      part.append(name);
      for (const [value, text] of a.ticks) {
        const label = svg("text", { x: x(i) + 6, y: y(a, value) + 4, "paint-order": "stroke", stroke: shade("card"), "stroke-width": 3 });
        label.textContent = text;
        part.append(label);
      }
      const range = svg("rect", { class: "kept", x: x(i) - 7, width: 14, y: top, height: 0 });
      part.append(range);
      const marks = [0, 1].map((side) => {
        const mark = svg("polygon", { tabindex: 0, role: "slider", "aria-label": `${side ? "highest" : "lowest"} ${a.name}`, "aria-orientation": "vertical", "aria-valuemin": a.low, "aria-valuemax": a.high });
        const set = (value) => {
          kept[i][side] = side ? Math.min(a.high, Math.max(value, kept[i][0])) : Math.max(a.low, Math.min(value, kept[i][1]));
          place();
          choose();
        };
        mark.addEventListener("keydown", (event) => {
          const step = (a.high - a.low) / 40;
          const moves = { ArrowUp: step, ArrowRight: step, ArrowDown: -step, ArrowLeft: -step, PageUp: 5 * step, PageDown: -5 * step, Home: -Infinity, End: Infinity };
          if (!(event.key in moves)) return;
          event.preventDefault();
          const to = kept[i][side] + moves[event.key];
          set(to === -Infinity ? a.low : to === Infinity ? a.high : to);
        });
        mark.addEventListener("pointerdown", (event) => { mark.setPointerCapture(event.pointerId); event.preventDefault(); mark.focus({ focusVisible: false }); });
        mark.addEventListener("pointermove", (event) => {
          if (!mark.hasPointerCapture(event.pointerId)) return;
          const box = drawing.getBoundingClientRect();
          const at = (event.clientY - box.top) * height / box.height;
          set(a.low + (height - bottom - at) / (height - top - bottom) * (a.high - a.low));
        });
        part.append(mark);
        return mark;
      });
      function place() {
        const [low, high] = kept[i].map((v) => y(a, v));
        marks[0].setAttribute("points", `${x(i)},${low} ${x(i) - 7},${low + 11} ${x(i) + 7},${low + 11}`);
        marks[1].setAttribute("points", `${x(i)},${high} ${x(i) - 7},${high - 11} ${x(i) + 7},${high - 11}`);
        marks.forEach((m, side) => {
          m.setAttribute("aria-valuenow", kept[i][side]);
          m.setAttribute("aria-valuetext", num(a.back(kept[i][side]), 4));
        });
        const all = kept[i][0] <= a.low && kept[i][1] >= a.high;
        range.setAttribute("y", high);
        range.setAttribute("height", all ? 0 : Math.max(low - high, 0));
      }
      place();
      drawing.append(part);
    });
    holder.append(drawing);
    choose();
  }
  redrawn.push(fill);
  let last = 0;
  new ResizeObserver(() => {
    if (holder.clientWidth === last) return;
    last = holder.clientWidth;
    fill();
  }).observe(holder);
  return el("figure", {}, holder, told);
}
