"use strict";
(() => {
const film = JSON.parse(document.getElementById("film").textContent);
const byId = id => document.getElementById(id);
const NS = "http://www.w3.org/2000/svg";
const make = (name, attributes = {}, text = "", space = null) => {
  const element = space ? document.createElementNS(space, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text) element.textContent = text;
  return element;
};

// -- colours: of each kind of operation one, of several operations of a kind shades ------------------------
const KINDS = {conv: [218, 70], sep: [152, 52], dil: [266, 52], max: [22, 76], avg: [45, 70], id: [214, 12], zero: [354, 52]};
const colours = film.ops.map(() => "");
for (const kind of Object.keys(KINDS)) {
  const same = film.mixed.filter(op => film.ops[op][1] === kind);
  same.forEach((op, index) => {
    const light = 52 + (same.length > 1 ? 22 * index / (same.length - 1) - 6 : 0);
    colours[op] = `hsl(${KINDS[kind][0]} ${KINDS[kind][1]}% ${light}%)`;
  });
}
const CURVES = ["#4c7fe0", "#d9622f", "#2f9e6e", "#a06ad8", "#b98a1d", "#d04f86"];

// -- the cells ---------------------------------------------------------------------------------------------
const parts = new Map(film.edges.map(name => [name, {lines: [], labels: []}]));
for (const element of document.querySelectorAll("[data-edge]")) {
  const part = parts.get(element.dataset.edge);
  if (!part) continue;
  if (element.classList.contains("nr-label")) part.labels.push(element);
  else part.lines.push(element);
}
const ways = new Map();
for (const [name, part] of parts)
  for (const label of part.labels) ways.set(name, label.querySelector("title").textContent.split(": ").pop());

function showCell(cell, before) {
  film.edges.forEach((name, place) => {
    const op = cell[1][place];
    const {lines, labels} = parts.get(name);
    const isNew = before !== null && op >= 0 && op !== before[1][place];
    const isNone = op >= 0 && film.ops.length > 0 && film.ops[op][1] === "zero" && labels.length > 0;
    for (const line of lines) {
      line.classList.toggle("off", op < 0);
      line.classList.toggle("new", isNew);
      if (labels.length) line.classList.toggle("nr-none", isNone);
    }
    for (const label of labels) {
      label.classList.toggle("off", op < 0);
      label.classList.toggle("new", isNew);
      if (op < 0) continue;
      const [text, kind, full] = film.ops[op];
      label.querySelector("text").textContent = text;
      label.querySelector("rect").setAttribute("class", "nr-" + kind);
      label.querySelector("title").textContent = full + ": " + ways.get(name);
    }
  });
}

// -- charts ------------------------------------------------------------------------------------------------
let track, at = 0, timer = 0, cursors = [], relaxed = [], readings = [];
const round = value => Math.round(value * 100) / 100;
const short = (value, span) => {  // as many digits as tell the ends of a span apart
  const digits = value && span ? Math.ceil(Math.log10(Math.abs(value) / span)) + 2 : 4;
  return String(Number(value.toPrecision(Math.min(Math.max(digits, 4), 8))));
};

function chart(caption, count, draw) {
  const figure = make("figure", {class: "card"});
  const head = make("figcaption"), name = make("b");
  name.append(...caption.split(/_\{(.*?)\}/).map((part, index) => index % 2 ? make("sub", {}, part) : part));
  head.append(name);
  const width = Math.max(count - 1, 1);
  const svg = make("svg", {viewBox: `0 0 ${width} 100`, preserveAspectRatio: "none", "aria-hidden": "true"}, "", NS);
  draw(svg, head);
  const cursor = make("line", {class: "cursor", y1: 0, y2: 100}, "", NS);
  svg.append(cursor);
  cursors.push(cursor);
  svg.addEventListener("click", event => {
    const box = svg.getBoundingClientRect();
    go(Math.round((event.clientX - box.left) / box.width * (count - 1)));
  });
  const reading = make("output");
  figure.append(head, svg, reading);
  return {figure, reading};
}

function drawAreas(svg, shares, steps) {
  const below = steps.map(() => 0), y = k => round(100 - 100 * below[k] / film.units);
  shares.forEach((values, number) => {
    const lower = steps.map((x, k) => `${x} ${y(k)}`);
    values.forEach((value, k) => { below[k] += value; });
    const upper = steps.map((x, k) => `${x} ${y(k)}`);
    svg.append(make("path", {d: "M" + upper.join("L") + "L" + lower.reverse().join("L") + "Z",
                             fill: colours[film.mixed[number]]}, "", NS));
  });
}

function drawLines(svg, shares, steps, [low, high]) {
  shares.forEach((values, number) => {
    const points = values.map((value, k) => `${steps[k]} ${round(97 - 94 * (value - low) / (high - low || 1))}`);
    svg.append(make("path", {class: "curve", d: `M${points.join("L")}h0`, stroke: colours[film.mixed[number]]}, "", NS));
  });
}

function limits(shares) {  // of all edges: one scale for all charts
  let low = film.units, high = 0;
  for (const values of shares.flat()) for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return [low, high];
}

function drawCurve(svg, values, colour) {
  const known = values.filter(value => value !== null);
  const low = Math.min(...known), high = Math.max(...known), span = high - low || 1;
  const points = values.flatMap((value, x) => value === null ? [] : [`${x} ${round(94 - 88 * (value - low) / span)}`]);
  svg.append(make("path", {class: "curve", d: `M${points.join("L")}h0`, stroke: colour}, "", NS));
}

function buildCharts() {
  cursors = []; relaxed = []; readings = [];
  const count = track.frames.length;
  byId("curves").replaceChildren(...Object.entries(track.curves).map(([name, values], number) => {
    const known = values.filter(value => value !== null), low = Math.min(...known), high = Math.max(...known);
    const {figure, reading} = chart(name, count, (svg, head) => {
      drawCurve(svg, values, CURVES[number % CURVES.length]);
      head.append(make("span", {class: "note"}, `${short(low, high - low)} to ${short(high, high - low)}`));
    });
    readings.push(() => { reading.value = values[at] === null ? "-" : short(values[at], high - low); });
    return figure;
  }));
  byId("watched").hidden = !Object.keys(track.curves).length || count < 2;
  byId("mixed").hidden = !track.alphas;
  byId("alphas").replaceChildren();
  if (!track.alphas) return;
  const {steps, shares} = track.alphas, span = limits(shares);
  const isLines = byId("form").value === "lines" || (!byId("form").value && span[1] - span[0] < film.units / 10);
  byId("form").value = isLines ? "lines" : "areas";
  byId("scale").hidden = !isLines;
  byId("scale").textContent = `from ${short(span[0] / film.units, 1e-3)} to ${short(span[1] / film.units, 1e-3)}`;
  const groups = new Map();
  film.relaxed.forEach(([role, source, node, drawn], edge) => {
    const {figure, reading} = chart(`${source} \u2192 ${node}`, count, svg => {
      if (isLines) drawLines(svg, shares[edge], steps, span); else drawAreas(svg, shares[edge], steps);
    });
    if (!groups.has(role)) groups.set(role, []);
    groups.get(role).push(figure);
    relaxed.push({figure, reading, drawn, shares: shares[edge]});
  });
  for (const [role, figures] of groups) {
    const charts = make("div", {class: "charts"});
    charts.append(...figures);
    byId("alphas").append(make("h3", {}, `${role} cell`), charts);
  }
}

function showCharts(cell) {
  for (const cursor of cursors) { cursor.setAttribute("x1", at); cursor.setAttribute("x2", at); }
  for (const read of readings) read();
  if (!track.alphas) return;
  const steps = track.alphas.steps;
  let step = steps.findIndex(value => value >= at);
  if (step < 0) step = steps.length - 1;
  for (const {figure, reading, drawn, shares} of relaxed) {
    figure.classList.toggle("kept", drawn.some(name => cell[1][film.edges.indexOf(name)] >= 0));
    const now = shares.map(values => values[step]);
    const best = now.indexOf(Math.max(...now));
    reading.value = `${film.ops[film.mixed[best]][0]} ${(now[best] / film.units).toFixed(3)}`;
  }
}

// -- the player --------------------------------------------------------------------------------------------
function go(moment) {
  at = Math.min(Math.max(moment, 0), track.frames.length - 1);
  const [label, cell, alarm, instead] = track.frames[at];
  const before = at > 0 ? film.cells[track.frames[at - 1][1]] : null;
  byId("at").value = at;
  byId("at").setAttribute("aria-valuetext", label);
  byId("when").value = `${label} (${at + 1} of ${track.frames.length})`;
  byId("alarm").hidden = !alarm;
  byId("alarm").textContent = "alarm: " + alarm;
  byId("instead").hidden = !instead || instead === film.cells[cell][0];
  byId("instead").querySelector("span").textContent = instead;
  byId("genotype").textContent = film.cells[cell][0];
  showCell(film.cells[cell], before);
  showCharts(film.cells[cell]);
}

function pause() {
  clearInterval(timer);
  timer = 0;
  byId("icon").setAttribute("d", "M3 1l11 7-11 7z");
  byId("play").setAttribute("aria-label", "Play");
}

function play() {
  if (at === track.frames.length - 1) go(0);
  const pace = Math.min(Math.max(20000 / track.frames.length, 40), 900);
  timer = setInterval(() => { if (at < track.frames.length - 1) go(at + 1); else pause(); }, pace);
  byId("icon").setAttribute("d", "M3 1h4v14H3zM9 1h4v14H9z");
  byId("play").setAttribute("aria-label", "Pause");
}

function choose(number) {
  pause();
  track = film.tracks[number];
  const last = track.frames.length - 1;
  byId("at").max = last;
  byId("marks").replaceChildren(...track.frames.flatMap(([label, , alarm], moment) => {
    if (!alarm || (moment && track.frames[moment - 1][2] === alarm)) return [];
    const mark = make("button", {type: "button", title: `${label}: alarm, ${alarm}`, "aria-label": `${label}: alarm, ${alarm}`});
    mark.style.left = `${last ? 100 * moment / last : 0}%`;
    mark.addEventListener("click", () => go(moment));
    return [mark];
  }));
  buildCharts();
  go(Math.min(at, last));
}

film.tracks.forEach((one, number) => byId("track").append(make("option", {value: number}, one.name)));
byId("choice").hidden = film.tracks.length < 2;
for (const op of film.mixed) {
  const item = make("li"), colour = make("i");
  colour.style.background = colours[op];
  item.append(colour, film.ops[op][2]);
  byId("legend").append(item);
}
byId("track").addEventListener("change", event => choose(Number(event.target.value)));
byId("form").value = "";
byId("form").addEventListener("change", () => { buildCharts(); go(at); });
byId("at").addEventListener("input", event => { pause(); go(Number(event.target.value)); });
byId("play").addEventListener("click", () => { if (timer) pause(); else play(); });
at = film.tracks[0].frames.length - 1;
choose(0);
})();
