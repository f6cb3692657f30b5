// Puts the page together.
function setGroup(name) {
  group = data.groups.find((one) => one.name === name) || null;
  const select = document.querySelector("#nav select");
  if (select) select.value = String(data.groups.indexOf(group));
  drawAll();
}

function navigation() {
  const links = sections.map(([id, title]) => el("a", { href: "#" + id }, title));
  const picker = data.kind === "study" && data.groups.length > 1
    ? el("div", { class: "controls" }, choice("segment", data.groups.map((g, i) => [i, groupName(g)]), 0, (value) => setGroup(data.groups[value].name))) : null;
  document.getElementById("nav").append(el("div", { class: "inside" }, el("ul", {}, links.map((a) => el("li", {}, a))), picker));
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      links.forEach((a) => a.getAttribute("href") === "#" + entry.target.id ? a.setAttribute("aria-current", "true") : a.removeAttribute("aria-current"));
    }
  }, { rootMargin: "-15% 0px -75% 0px" });
  document.querySelectorAll("section.card").forEach((node) => seen.observe(node));
}

function studyPage() {
  const facts = data.facts;
  group = data.groups[0] || null;
  const lines = [data.simulated ? data.simulated.words : facts.dir, `report made ${when(data.made)}` + (facts.state === "running" ? ", while the study runs" : facts.stop_reason ? `; the last run stopped: ${facts.stop_reason}` : "")];
  if (data.group_count > data.groups.length) lines.push(`Plots of single segments: the ${data.groups.length} with most losses, of ${num(data.group_count)}.`);
  head(data.name, facts.state, lines);
  overview();
  if (data.simulated) simulatedSection();
  frontSection();
  bestPoint();
  historySection();
  searchSections();
  curvesSection();
  segmentsSection();
  timelineSection();
  failuresSection();
  reproduceSection();
}

if (data.kind === "compare") comparePage(); else studyPage();
navigation();
document.getElementById("foot").append(`Made by hpc_hpo ${data.version}. This page holds all of its data and asks the network for nothing.`);
drawAll();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);

// On paper: light, as wide as a sheet, with everything unfolded.
let before = null;
addEventListener("beforeprint", () => {
  before = { theme: root.dataset.theme, closed: [...document.querySelectorAll("details:not([open])")] };
  before.closed.forEach((d) => d.setAttribute("open", ""));
  root.dataset.theme = "light";
  printing = true;
  drawAll();
});
addEventListener("afterprint", () => {
  if (!before) return;
  if (before.theme) root.dataset.theme = before.theme; else delete root.dataset.theme;
  before.closed.forEach((d) => d.removeAttribute("open"));
  printing = false;
  before = null;
  drawAll();
});
root.dataset.ready = "yes";
