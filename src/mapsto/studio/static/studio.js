// Makes the charts of a page interactive (uPlot), and follows a run that has not come to its end. Without this file every chart is SVG.
"use strict";

const section = document.querySelector("[data-curves]");
const drawn = new Map();
const tone = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const short = (value) => (value === null || value === undefined ? "–" : Number(value.toPrecision(5)).toString());

function options(chart, width) {
  const ink = tone("--muted"), grid = { stroke: tone("--line"), width: 1 }, font = "12px system-ui, sans-serif";
  const axis = (label, more) => ({ label, stroke: ink, grid, ticks: grid, font, labelFont: font, labelSize: 18, ...more });
  const lines = chart.names.map((name, place) => ({
    label: name, stroke: tone(`--s${(place % 6) + 1}`), width: 2, spanGaps: true,
    points: { show: chart.data[0].length <= 30 }, value: (plot, value) => short(value),
  }));
  return {
    width, height: 280, legend: { live: true }, cursor: { drag: { x: true, y: false } },
    scales: { x: { time: false } },
    axes: [axis(chart.x), axis(chart.y, { size: 62, values: (plot, ticks) => ticks.map(short) })],
    series: [{ label: chart.x, value: (plot, value) => short(value) }, ...lines],
  };
}

function draw(charts) {
  for (const chart of charts) {
    const figure = section.querySelector(`figure[data-chart="${CSS.escape(chart.id)}"]`);
    if (!figure || chart.data[0].length < 2) continue;
    const before = drawn.get(chart.id), place = figure.querySelector(".scroll");
    if (before && before.names === chart.names.join()) {
      before.plot.setData(chart.data);
      continue;
    }
    if (before) before.plot.destroy();
    const plot = new uPlot(options(chart, Math.max(240, place.clientWidth)), chart.data, place);
    plot.root.setAttribute("aria-hidden", "true"); // the drawing that screen readers are told of is the SVG's name, on the region
    figure.setAttribute("data-drawn", "");
    drawn.set(chart.id, { plot, names: chart.names.join(), chart });
  }
}

function say(found) {
  const state = document.querySelector("[data-state]"), said = document.querySelector("[data-said]"), rows = document.querySelector("[data-steps]");
  if (!state || !said || !rows) return;
  state.textContent = found.state;
  if (said.textContent !== found.said) said.textContent = found.said;
  rows.replaceChildren(...found.steps.map((step) => {
    const row = document.createElement("tr"), name = document.createElement("th");
    const count = document.createElement("td"), many = document.createElement("td");
    name.scope = "row"; name.textContent = step.name;
    count.className = "n"; count.textContent = step.row;
    many.className = "many";
    many.textContent = Object.entries(step.metrics).map(([key, value]) => `${key} ${short(value)}`).join(" · ");
    row.append(name, count, many);
    return row;
  }));
}

async function look() {
  const answer = await fetch(section.dataset.curves, { headers: { accept: "application/json" } });
  if (!answer.ok) throw new Error(`${answer.status}`);
  return answer.json();
}

async function follow(known) {
  const said = document.querySelector("[data-said]");
  for (;;) {
    await new Promise((go) => { setTimeout(go, document.hidden ? 10000 : 2000); });
    try {
      const found = await look();
      if (found.state === "finished" || found.charts.map((each) => each.id).join() !== known) {
        location.reload(); // the report is there, or a step has begun, whose chart the page does not have yet
        return;
      }
      say(found);
      draw(found.charts);
    } catch (error) {
      said.textContent = `the studio does not answer (${error.message}); trying again`;
    }
  }
}

if (section) {
  const hint = document.querySelector("[data-without-script]");
  if (hint) hint.hidden = true;
  look().then((found) => {
    draw(found.charts);
    if ("follow" in section.dataset) follow(found.charts.map((each) => each.id).join());
  }).catch((error) => { console.warn(`the charts stay as they are: ${error.message}`); });
  let waiting;
  addEventListener("resize", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      for (const { plot } of drawn.values()) plot.setSize({ width: Math.max(240, plot.root.parentElement.clientWidth), height: 280 });
    }, 120);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    const charts = [...drawn.values()].map((each) => each.chart);
    for (const { plot } of drawn.values()) plot.destroy();
    drawn.clear();
    draw(charts);
  });
}
