"use strict";

// The page is a function of `data`, which is never changed, and `state`, which the address keeps after its #.
const data = JSON.parse(document.getElementById("data").textContent);
const runs = data.runs; // the best first
const SVG = document.getElementById("ink").namespaceURI;
const UNITS = {
  "train/loss": "nats per token",
  "val/loss": "nats per token",
  "val/bpb": "bits per byte of text",
  lr: "learning rate",
  "train/grad_norm": "norm of the gradient",
  "perf/tokens_per_s": "tokens per second",
};
const OVER = { steps: "optimizer steps", tokens: "tokens trained on", seconds: "seconds of training" };
const BANDS = { each: "each run", range: "mean, min to max", sd: "mean ± deviation" };
const NOISY = ["train/loss", "train/grad_norm", "perf/tokens_per_s"];
const BEST = 10; // shown to begin with
const LIGHT = [
  "#1f6fd6",
  "#e8770a",
  "#159a58",
  "#d4313f",
  "#8a55d9",
  "#0aa3b5",
  "#b58a00",
  "#d9459b",
  "#7a5138",
  "#6b7480",
];
const DARK = [
  "#5a9cf5",
  "#ff9d42",
  "#3fc380",
  "#ff6b6b",
  "#b48cff",
  "#35cfe0",
  "#e3bd3a",
  "#ff82c4",
  "#c0906f",
  "#a8b0ba",
];
const DASHES = ["", "7 3", "2 3", "9 3 2 3"];

const metricKind = Object.fromEntries(
  Object.entries(data.metrics).flatMap(([kind, names]) => names.map((n) => [n, kind])),
);
const logged = Object.keys(UNITS).filter((name) =>
  runs.some((run) => run[metricKind[name]][name].some((v) => v !== null)),
);
const groups = [...new Set(runs.map((run) => run.group).filter((g) => g !== null))];
const DEFAULTS = {
  y:
    logged.includes("val/loss") && data.by !== "val/bpb"
      ? "val/loss"
      : data.by === "val/bpb"
        ? "val/bpb"
        : logged[0] || "val/loss",
  x: "steps",
  logx: "",
  logy: "",
  smooth: max(runs.map((run) => run.train.step.length)) > 100 ? "0.6" : "0",
  bands: "each",
  where: "",
  sort: "",
  step: "",
  from: "",
  to: "",
  runs: "best",
};
let state = read();

// ---- the address

function read() {
  const typed = new URLSearchParams(location.hash.slice(1));
  const found = { ...DEFAULTS };
  for (const key of Object.keys(DEFAULTS)) if (typed.has(key)) found[key] = typed.get(key);
  const named = new Set(typed.getAll("run"));
  if (named.size) found.runs = new Set(runs.filter((run) => named.has(run.row.run)));
  if (!named.size && !["best", "all", "none"].includes(found.runs)) found.runs = "best";
  for (const id of ["logx", "logy"]) if (found[id] !== "1") found[id] = "";
  for (const end of ["from", "to"]) if (!Number.isFinite(Number(found[end]))) found[end] = "";
  if (!logged.includes(found.y)) found.y = DEFAULTS.y;
  if (!(found.x in OVER)) found.x = "steps";
  if (!(found.bands in BANDS) || !groups.length) found.bands = "each";
  if (!(found.smooth >= 0 && found.smooth < 1)) found.smooth = DEFAULTS.smooth;
  return found;
}

function keep() {
  const typed = new URLSearchParams();
  for (const [key, value] of Object.entries(state)) {
    if (key === "runs" && value instanceof Set) {
      if (value.size) for (const run of value) typed.append("run", run.row.run);
      else typed.set("runs", "none");
    } else if (String(value) !== DEFAULTS[key]) typed.set(key, value);
  }
  history.replaceState(null, "", "#" + typed);
}

function set(changes) {
  Object.assign(state, changes);
  keep();
  draw();
}

// ---- elements

function el(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

function svg(name, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

function filled(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value === true) node.setAttribute(key, "");
    else if (value !== false && value !== null) node.setAttribute(key, value);
  }
  node.append(...children); // text stays text
  return node;
}

function put(id, ...children) {
  document.getElementById(id).replaceChildren(...children);
}

// ---- words and numbers

function plain(value) {
  return value === null || value === undefined ? "–" : typeof value === "string" ? value : JSON.stringify(value);
}

function cell(column, value) {
  if (typeof value !== "number") return plain(value);
  if (data.decimals.includes(column)) return value.toFixed(4);
  if (["parameters", "tokens", "tokens/s"].includes(column)) return Math.round(value).toLocaleString("en");
  if (column === "seconds") return value.toLocaleString("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 });
  return plain(value);
}

// Of an axis' ticks: in one unit, with as many decimals as the finest needs.
function labels(values) {
  const units = Object.entries({ G: 1e9, M: 1e6, k: 1e3 });
  const sizes = values.map(Math.abs).filter(Boolean);
  const size = sizes.length ? max(sizes) : 1;
  if (size < 1e-2 || size / min([size, ...sizes]) > 999)
    return values.map((v) => {
      if (v && (Math.abs(v) < 1e-3 || Math.abs(v) >= 1e12)) return (+v.toPrecision(5)).toExponential().replace("+", "");
      const [name, unit] = units.find(([, u]) => Math.abs(v) >= Math.max(u, 1e4)) || ["", 1];
      return +(v / unit).toPrecision(5) + name;
    });
  const [name, unit] = units.find(([, u]) => size >= Math.max(u, 1e4)) || ["", 1];
  const decimals = max(values.map((v) => (String(+(v / unit).toPrecision(6)).split(".")[1] || "").length));
  return values.map((v) => (v ? (v / unit).toFixed(decimals) + name : "0"));
}

// For where the pointer is.
function exact(value) {
  return Math.abs(value) >= 1e4
    ? Math.round(value).toLocaleString("en")
    : Math.abs(value) < 1e-3 && value
      ? value.toExponential(3)
      : String(+value.toPrecision(5));
}

// The keys that tell most runs apart come first.
const distinct = (k) => new Set(runs.map((run) => plain(run.row[k]))).size;
const telling = [...data.keys].sort((a, b) => distinct(b) - distinct(a));

// In what it differs from the others.
function describe(run, without = []) {
  return telling
    .filter((k) => !without.includes(k) && run.row[k] !== null)
    .map((k) => `${data.short[k]}=${plain(run.row[k])}`)
    .join(" ");
}

// ---- which runs

function matches(run, words) {
  return words.every((word) => {
    const found = /^([^=<>]+)([=<>])(.*)$/.exec(word);
    if (!found) return `${run.row.run} ${run.row.status} ${describe(run)}`.toLowerCase().includes(word.toLowerCase());
    const column = data.columns.find((c) => c === found[1]) || data.columns.find((c) => data.short[c] === found[1]);
    const value = column && run.row[column];
    if (column === undefined) return false;
    if (found[2] === "=")
      return plain(value) === found[3] || (typeof value === "number" && found[3] !== "" && value === Number(found[3]));
    return typeof value === "number" && (found[2] === "<" ? value < Number(found[3]) : value > Number(found[3]));
  });
}

// Of the filter: status=finished lr=0.001; quotes hold together what has spaces.
function words(typed) {
  return (typed.match(/(?:[^\s"]|"[^"]*")+/g) || []).map((word) => word.replaceAll('"', ""));
}

function filtered() {
  const wanted = words(state.where);
  return runs.filter((run) => matches(run, wanted));
}

function shownRuns(left) {
  if (state.runs === "best")
    return new Set(
      lines(left)
        .slice(0, BEST)
        .flatMap((line) => line.runs),
    ); // seeds stay together
  if (state.runs === "all") return new Set(left);
  return state.runs === "none" ? new Set() : new Set(left.filter((run) => state.runs.has(run)));
}

const dark = matchMedia("(prefers-color-scheme: dark)");

// Ten colors, then the same colors dashed, then hues that differ from those of the neighbors.
function look(index) {
  const palette = dark.matches ? DARK : LIGHT;
  const hue = `hsl(${(index * 137.508) % 360} 65% ${(dark.matches ? 62 : 42) + 8 * ((index % 3) - 1)}%)`;
  return { color: index < 40 ? palette[index % 10] : hue, dash: DASHES[Math.floor(index / 10) % 4] };
}

// The identity of a line: a run, or its group if bands are drawn.
const identity = (run) => (state.bands === "each" || run.group === null ? run.row.run : run.group);

function lookOf(run) {
  return look([...new Set(runs.map(identity))].indexOf(identity(run)));
}

function key({ color, dash }) {
  const line = svg("line", { x1: 0, x2: 24, y1: 4, y2: 4, stroke: color, "stroke-dasharray": dash });
  return svg("svg", { class: "key", viewBox: "0 0 24 8", "aria-hidden": "true" }, line);
}

// The lines of the chart, best first: runs, or with bands the groups of runs that only differ in seed. `figure` is
// that of the run, or the mean over the finished runs of the group.
function lines(list) {
  const found = new Map();
  for (const run of list) found.set(identity(run), [...(found.get(identity(run)) || []), run]);
  const rank = (line) => (line.figure === null ? Infinity : line.figure);
  return [...found.values()]
    .map((members) => {
      const [run] = members;
      if (members.length === 1)
        return { runs: members, look: lookOf(run), name: run.row.run, what: describe(run), figure: run.row[data.by] };
      const done = members.filter((member) => member.row.status === "finished");
      const figures = done.map((member) => member.row[data.by]).filter((v) => v !== null);
      const figure = figures.length ? figures.reduce((a, b) => a + b) / figures.length : null;
      const what = `${members.length} seeds: ${members.map((member) => member.row.run).join(", ")}`;
      return { runs: members, look: lookOf(run), name: describe(run, ["seed"]) || "all runs", what, figure };
    })
    .sort((a, b) => rank(a) - rank(b) || 0);
}

// ---- curves

// The points of a run's curve that can be drawn.
function curve(run, metric, over) {
  const rows = run[metricKind[metric]];
  const x =
    over === "steps" ? rows.step : over === "tokens" ? rows.step.map((s) => s * run.tokens_per_step) : rows.seconds;
  const points = { step: [], x: [], y: [] };
  rows[metric].forEach((y, i) => {
    if (y === null || x[i] === undefined || (state.logx && x[i] <= 0) || (state.logy && y <= 0)) return;
    points.step.push(rows.step[i]);
    points.x.push(x[i]);
    points.y.push(y);
  });
  return points;
}

// The mean and spread of a group, at the steps that all members which reached them have logged.
function band(members) {
  const curves = members.map((run) => curve(run, state.y, state.x)).filter((c) => c.x.length);
  const at = curves.map((c) => new Map(c.step.map((s, i) => [s, i])));
  const out = { step: [], x: [], y: [], lo: [], hi: [], n: [] };
  for (const step of [...new Set(curves.flatMap((c) => c.step))].sort((a, b) => a - b)) {
    const there = curves.filter((c, j) => at[j].has(step));
    if (there.length < curves.filter((c) => c.step[0] <= step && step <= c.step.at(-1)).length) continue;
    const values = curves.flatMap((c, j) => (at[j].has(step) ? [c.y[at[j].get(step)]] : []));
    const xs = curves.flatMap((c, j) => (at[j].has(step) ? [c.x[at[j].get(step)]] : []));
    const n = values.length;
    const mean = values.reduce((a, b) => a + b) / n;
    const sd = n > 1 ? Math.sqrt(values.reduce((a, v) => a + (v - mean) ** 2, 0) / (n - 1)) : 0;
    out.step.push(step);
    out.x.push(xs.reduce((a, b) => a + b) / n);
    out.y.push(mean);
    out.lo.push(state.bands === "sd" ? mean - sd : Math.min(...values));
    out.hi.push(state.bands === "sd" ? mean + sd : Math.max(...values));
    out.n.push(n);
  }
  return out;
}

// Exponential mean, corrected for its bias towards 0 at the start.
function smoothed(values, weight) {
  let sum = 0;
  let count = 0;
  return values.map((value) => {
    sum = weight * sum + (1 - weight) * value;
    count = weight * count + (1 - weight);
    return sum / count;
  });
}

function series(list) {
  const weight = NOISY.includes(state.y) ? Number(state.smooth) : 0;
  return lines(list)
    .map((line) => {
      const points = line.runs.length > 1 ? band(line.runs) : curve(line.runs[0], state.y, state.x);
      const found = { ...line, ...points, raw: points.y };
      if (weight) for (const name of ["y", "lo", "hi"]) if (found[name]) found[name] = smoothed(found[name], weight);
      return found;
    })
    .filter((s) => s.x.length);
}

function ticks(low, high, most, log) {
  if (log) {
    for (const digits of [[1, 2, 3, 4, 5, 6, 7, 8, 9], [1, 2, 5], [1, 3], [1]]) {
      const found = [];
      for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e++)
        for (const d of digits) found.push(+`${d}e${e}`);
      const inside = found.filter((t) => t >= low && t <= high);
      if (inside.length >= 3 && inside.length <= most) return inside;
    }
    const decades = Math.ceil((Math.log10(high) - Math.log10(low)) / most);
    if (decades > 1)
      return [...Array(most + 1).keys()]
        .map((i) => 10 ** (decades * Math.ceil(Math.log10(low) / decades) + i * decades))
        .filter((t) => t <= high);
  }
  const rough = (high - low) / most;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const size = unit * [1, 2, 5, 10].find((m) => m * unit >= rough * 0.999);
  const found = [];
  for (let i = Math.ceil(low / size); i * size <= high * (1 + 1e-12); i++) found.push(+(i * size).toPrecision(12));
  return found;
}

let scale = null; // the scale of the drawn chart, for the pointer

function drawChart(list) {
  const chart = document.getElementById("chart");
  const width = chart.parentElement.clientWidth;
  const height = Math.round(Math.max(270, Math.min(470, width * 0.52)));
  const margin = { left: 56, right: 14, top: 30, bottom: 42 };
  chart.setAttribute("viewBox", `0 0 ${width} ${height}`);
  chart.setAttribute("height", height);
  chart.replaceChildren();
  document.getElementById("tip").hidden = true;
  const all = series(list);
  const [from, to] = [
    state.from === "" ? -Infinity : Number(state.from),
    state.to === "" ? Infinity : Number(state.to),
  ];
  const inside = (s, i) => s.x[i] >= from && s.x[i] <= to;
  const xs = all.flatMap((s) => s.x.filter((_, i) => inside(s, i)));
  const ys = all
    .flatMap((s) => [s.y, s.lo || [], s.hi || []].flatMap((v) => v.filter((_, i) => inside(s, i))))
    .filter((y) => !state.logy || y > 0);
  scale = null;
  if (!xs.length) {
    const why = list.length ? `no ${state.y} over ${state.x} here` : "no run is selected";
    chart.append(svg("text", { class: "title", x: width / 2, y: height / 2, "text-anchor": "middle" }, why));
    return;
  }
  const X = axis(min(xs), max(xs), state.logx, margin.left, width - margin.right, 0);
  const Y = axis(min(ys), max(ys), state.logy, height - margin.bottom, margin.top, 0.04);
  const bottom = height - margin.bottom;
  const yTicks = ticks(Y.low, Y.high, Math.max(3, Math.floor(height / 55)), state.logy);
  const yLabels = labels(yTicks);
  for (const [i, t] of yTicks.entries()) {
    chart.append(svg("line", { class: "grid", x1: margin.left, x2: width - margin.right, y1: Y.at(t), y2: Y.at(t) }));
    chart.append(svg("text", { x: margin.left - 7, y: Y.at(t) + 4, "text-anchor": "end" }, yLabels[i]));
  }
  const xTicks = ticks(X.low, X.high, Math.max(3, Math.floor(width / 95)), state.logx);
  const xLabels = labels(xTicks);
  for (const [i, t] of xTicks.entries()) {
    chart.append(svg("line", { class: "grid", x1: X.at(t), x2: X.at(t), y1: margin.top, y2: bottom }));
    chart.append(svg("text", { x: X.at(t), y: bottom + 17, "text-anchor": "middle" }, xLabels[i]));
  }
  chart.append(svg("line", { class: "axis", x1: margin.left, x2: width - margin.right, y1: bottom, y2: bottom }));
  const unit = `${state.y}, ${UNITS[state.y]}${state.logy ? ", log" : ""}`;
  chart.append(svg("text", { class: "title", x: 4, y: 16 }, unit));
  chart.append(
    svg(
      "text",
      { class: "title", x: (margin.left + width - margin.right) / 2, y: height - 6, "text-anchor": "middle" },
      OVER[state.x] + (state.logx ? ", log" : ""),
    ),
  );
  const clip = svg(
    "clipPath",
    { id: "inside" },
    svg("rect", {
      x: margin.left,
      y: margin.top - 4,
      width: width - margin.left - margin.right,
      height: bottom - margin.top + 8,
    }),
  );
  const body = svg("g", { "clip-path": "url(#inside)" });
  const path = (s, values) =>
    values.map((v, i) => `${i ? "L" : "M"}${X.at(s.x[i]).toFixed(1)} ${Y.at(v).toFixed(1)}`).join("");
  for (const s of [...all].reverse()) {
    // draw the best run on top
    if (s.lo) {
      const back = s.lo
        .map((v, i) => `L${X.at(s.x[i]).toFixed(1)} ${Y.at(state.logy ? Math.max(v, Y.low) : v).toFixed(1)}`)
        .reverse()
        .join("");
      body.append(
        svg("path", {
          d: path(s, s.hi) + back + "Z",
          style: `fill: ${s.look.color}; fill-opacity: .18; stroke: none`,
        }),
      );
    }
    if (s.raw !== s.y && NOISY.includes(state.y) && Number(state.smooth))
      body.append(svg("path", { class: "raw", d: path(s, s.raw), stroke: s.look.color }));
    s.path = svg("path", { d: path(s, s.y), stroke: s.look.color, "stroke-dasharray": s.look.dash });
    body.append(s.path);
    if (s.x.length === 1) body.append(svg("circle", { cx: X.at(s.x[0]), cy: Y.at(s.y[0]), r: 3, fill: s.look.color }));
  }
  const over = svg("g");
  chart.append(clip, body, over);
  scale = { X, Y, all, over, margin, width, bottom };
}

// Math.min fails with very many arguments.
function min(values) {
  return values.reduce((a, b) => Math.min(a, b));
}

function max(values) {
  return values.reduce((a, b) => Math.max(a, b));
}

function axis(low, high, log, start, end, pad) {
  const f = log ? Math.log10 : (v) => v;
  const back = log ? (v) => 10 ** v : (v) => v;
  let [a, b] = [f(low), f(high)];
  if (a === b) [a, b] = log ? [a - 0.1, b + 0.1] : [a - (Math.abs(a) || 1) * 0.05, b + (Math.abs(b) || 1) * 0.05];
  [a, b] = [a - pad * (b - a), b + pad * (b - a)];
  return {
    low: back(a),
    high: back(b),
    at: (v) => start + ((f(v) - a) / (b - a)) * (end - start),
    of: (p) => back(a + ((p - start) / (end - start)) * (b - a)),
  };
}

function nearestIndex(xs, x) {
  let [a, b] = [0, xs.length - 1];
  while (b - a > 1) {
    const middle = (a + b) >> 1;
    if (xs[middle] < x) a = middle;
    else b = middle;
  }
  return Math.abs(xs[a] - x) <= Math.abs(xs[b] - x) ? a : b;
}

function hover(event) {
  const tip = document.getElementById("tip");
  if (!scale) return;
  const box = document.getElementById("chart").getBoundingClientRect();
  const px = event.clientX - box.left;
  const py = event.clientY - box.top;
  const { X, Y, all, over, margin, width, bottom } = scale;
  if (px < margin.left - 8 || px > width || py > bottom + 20) return leave();
  const found = all
    .map((s) => ({ s, i: nearestIndex(s.x, X.of(px)) }))
    .map((f) => ({ ...f, px: X.at(f.s.x[f.i]), py: Y.at(f.s.y[f.i]) }));
  const least = Math.max(14, min(found.map((f) => Math.abs(f.px - px))) + 2);
  const within = (f) => Math.abs(f.px - px) <= least || (X.at(f.s.x[0]) <= px && px <= X.at(f.s.x.at(-1)));
  let here = found.filter((f) => within(f) && f.px >= margin.left - 1 && f.px <= width);
  if (!here.length) return leave();
  const narrow = width < 500; // a phone
  const most = narrow ? 5 : 12;
  const hidden = here.length - most;
  here.sort((a, b) => Math.abs(a.py - py) - Math.abs(b.py - py));
  const near = here[0];
  here = here.slice(0, most).sort((a, b) => a.py - b.py);
  over.replaceChildren(svg("line", { class: "cross", x1: near.px, x2: near.px, y1: margin.top, y2: bottom }));
  for (const f of here)
    over.append(svg("circle", { cx: f.px, cy: f.py, r: f === near ? 5 : 3, fill: f.s.look.color }));
  for (const s of all) s.path.classList.toggle("near", s === near.s);
  const around = ({ s, i }) => {
    if (s.lo) return ` [${exact(s.lo[i])}, ${exact(s.hi[i])}], n=${s.n[i]}`;
    return s.raw === s.y ? "" : ` (${exact(s.raw[i])})`;
  };
  const other = ({ s, i }) =>
    state.x === "seconds" || s.x[i] === near.s.x[near.i] ? "" : ` at step ${s.step[i].toLocaleString("en")}`;
  const rows = here.map((f) => {
    const figure = exact(f.s.y[f.i]) + (narrow ? "" : around(f) + other(f));
    return el(
      "tr",
      { class: f === near ? "near" : false },
      el("td", {}, key(f.s.look)),
      el("td", {}, f.s.name),
      el("td", {}, figure),
    );
  });
  const place = state.x === "steps" ? "" : `, ${exact(near.s.x[near.i])} ${state.x}`;
  const where = `step ${near.s.step[near.i].toLocaleString("en")}${place}`;
  const more = hidden > 0 ? [el("div", { class: "soft" }, `and ${hidden} more`)] : [];
  const way = near.s.raw === near.s.y ? "" : "smoothed ";
  const spread = state.bands === "sd" ? "± deviation" : "min, max";
  const wide = near.s.lo ? `${way}mean [${spread}]` : way && `${way}(as logged)`;
  const said = narrow ? `${way}${near.s.lo ? "mean" : ""}${around(near)}` : wide; // of the nearest line only
  tip.replaceChildren(
    el("div", { class: "soft" }, where),
    el("table", {}, ...rows),
    ...more,
    el("div", { class: "soft" }, said),
  );
  tip.hidden = false;
  const left = near.px + 14 + tip.offsetWidth > width ? Math.max(0, near.px - 14 - tip.offsetWidth) : near.px + 14;
  tip.style.left = `${left}px`;
  tip.style.top = `${Math.max(0, Math.min(py - tip.offsetHeight / 2, bottom - tip.offsetHeight))}px`;
}

function leave() {
  document.getElementById("tip").hidden = true;
  if (!scale) return;
  scale.over.replaceChildren();
  for (const s of scale.all) s.path.classList.remove("near");
}

// Zoom by dragging the mouse over a range; a double click resets it.
function zoom(chart) {
  let start = null;
  let rect = null;
  const at = (event) => {
    const px = event.clientX - chart.getBoundingClientRect().left;
    return Math.max(scale.margin.left, Math.min(scale.width - scale.margin.right, px));
  };
  chart.addEventListener("pointerdown", (event) => {
    if (event.pointerType !== "mouse" || event.button || !scale) return;
    start = at(event);
    rect = svg("rect", {
      class: "zoom",
      y: scale.margin.top,
      height: scale.bottom - scale.margin.top,
      x: start,
      width: 0,
    });
    chart.append(rect);
    chart.setPointerCapture(event.pointerId);
  });
  chart.addEventListener("pointermove", (event) => {
    if (start === null) return hover(event);
    rect.setAttribute("x", Math.min(start, at(event)));
    rect.setAttribute("width", Math.abs(at(event) - start));
  });
  chart.addEventListener("pointerup", (event) => {
    if (start === null) return;
    const [a, b] = [Math.min(start, at(event)), Math.max(start, at(event))];
    rect.remove();
    start = null;
    if (b - a > 8) set({ from: exactly(scale.X.of(a)), to: exactly(scale.X.of(b)) });
  });
  chart.addEventListener("pointerleave", () => start === null && leave());
  chart.addEventListener("dblclick", () => set({ from: "", to: "" }));
}

const exactly = (value) => String(+value.toPrecision(6));

// ---- the parts of the page

function drawControls(left, shown) {
  const press = (name, on, act) =>
    el("button", { type: "button", "data-key": name, "aria-pressed": String(on), onclick: act }, name);
  put("metrics", ...logged.map((name) => press(name, state.y === name, () => set({ y: name }))));
  document.getElementById("x").value = state.x;
  for (const id of ["logx", "logy"]) document.getElementById(id).checked = Boolean(state[id]);
  const noisy = NOISY.includes(state.y);
  const smooth = document.getElementById("smooth");
  smooth.value = state.smooth;
  smooth.disabled = !noisy;
  smooth.parentElement.classList.toggle("off", !noisy);
  smooth.nextElementSibling.textContent = noisy ? state.smooth : "off";
  document.getElementById("bands").value = state.bands;
  document.getElementById("whole").hidden = state.from === "" && state.to === "";
  const where = document.getElementById("where");
  if (where !== document.activeElement) where.value = state.where;
  const some =
    left.length === runs.length
      ? `${runs.length} run${runs.length > 1 ? "s" : ""}`
      : `${left.length} of ${runs.length} runs`;
  put("count", some + (left.length ? `, ${shown.size} drawn` : ": nothing matches"));
  put(
    "choose",
    press(`best ${Math.min(BEST, lines(left).length)}`, state.runs === "best", () => set({ runs: "best" })),
    press("all", state.runs === "all", () => set({ runs: "all" })),
    press("none", shown.size === 0, () => set({ runs: "none" })),
    el("span", { class: "soft" }, state.bands === "each" ? data.by : `mean ${data.by.replace("best ", "")}`),
  );
}

function badge(name) {
  return name === data.best ? [el("span", { class: "badge" }, "best")] : [];
}

function toggle(members, left) {
  const now = shownRuns(left);
  const on = members.some((run) => now.has(run));
  for (const run of members) on ? now.delete(run) : now.add(run);
  set({ runs: now });
}

function drawLegend(left, shown) {
  const legend = document.getElementById("legend");
  const top = legend.scrollTop;
  legend.replaceChildren(
    ...lines(left).map((line) => {
      const check = el("input", {
        type: "checkbox",
        "data-key": `legend ${line.name}`,
        onchange: () => toggle(line.runs, left),
      });
      check.checked = line.runs.some((run) => shown.has(run));
      const mark = line.runs.length === 1 ? badge(line.name) : [];
      const what = line.what ? [el("span", { class: "what" }, line.what)] : [];
      const figure = line.figure === null ? "–" : line.figure.toFixed(3);
      return el(
        "li",
        {},
        el(
          "label",
          { title: `${line.name}\n${line.what}` },
          check,
          key(line.look),
          el("span", { class: "name" }, ...mark, line.name, ...what),
          el("span", { class: "figure soft" }, figure),
        ),
      );
    }),
  );
  legend.scrollTop = top;
}

function sorted(list) {
  const column = state.sort.replace(/^-/, "");
  const down = state.sort.startsWith("-") ? -1 : 1;
  if (!data.columns.includes(column)) return list;
  const rank = (a, b) => {
    const [u, v] = [a.row[column], b.row[column]];
    if (u === null || v === null) return (u === null) - (v === null); // unknown values last in both directions
    if (typeof u === typeof v && typeof u === "number") return down * (u - v);
    return down * plain(u).localeCompare(plain(v), "en", { numeric: true });
  };
  return [...list].sort(rank);
}

function drawTable(left, shown) {
  const numeric = new Set(
    data.columns.filter((c) => runs.every((run) => run.row[c] === null || typeof run.row[c] === "number")),
  );
  const sorting = (c) =>
    state.sort === c
      ? "ascending"
      : state.sort === `-${c}`
        ? "descending"
        : c === data.by && !state.sort
          ? "ascending"
          : "none";
  const head = data.columns.map((c) => {
    const arrow = { ascending: " ↑", descending: " ↓", none: "" }[sorting(c)];
    const press = el(
      "button",
      {
        type: "button",
        "data-key": `column ${c}`,
        title: c,
        onclick: () => set({ sort: sorting(c) === "ascending" ? `-${c}` : c }),
      },
      (data.short[c] || c) + arrow,
    );
    return el("th", { class: numeric.has(c) ? "r" : "", "aria-sort": sorting(c), scope: "col" }, press);
  });
  const body = sorted(left).map((run) => {
    const cells = data.columns.map((c) => {
      const value = cell(c, run.row[c]);
      if (c !== "run")
        return el(
          "td",
          {
            class:
              (numeric.has(c) ? "r" : "cut") + (c === "status" && ["failed", "killed"].includes(value) ? " bad" : ""),
            title: c === "status" && run.error ? run.error : value,
          },
          value,
        );
      const check = el("input", {
        type: "checkbox",
        "data-key": `table ${value}`,
        "aria-label": `draw ${value}`,
        onchange: () => toggle([run], left),
      });
      check.checked = shown.has(run);
      return el("td", { title: value }, el("label", {}, check, key(lookOf(run)), ...badge(value), value));
    });
    return el("tr", { class: run.row.run === data.best ? "best" : false }, ...cells);
  });
  put("runs", el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...body));
}

// The values of each key, with the number of runs that have each value.
function drawDifferences() {
  const rows = data.keys.flatMap((k) => {
    const others = words(state.where).filter((w) => !w.startsWith(`${k}=`));
    const counts = new Map();
    for (const run of runs.filter((r) => matches(r, others)))
      counts.set(plain(run.row[k]), (counts.get(plain(run.row[k])) || 0) + 1);
    const word = (value) => (/\s/.test(value) ? `"${k}=${value}"` : `${k}=${value}`);
    const on = (value) => words(state.where).includes(`${k}=${value}`);
    const flip = (value) => {
      const rest = words(state.where)
        .filter((w) => !w.startsWith(`${k}=`))
        .map((w) => (/\s/.test(w) ? `"${w}"` : w));
      set({ where: [...rest, ...(on(value) ? [] : [word(value)])].join(" ") });
    };
    const values = [...counts].sort(([a], [b]) => a - b || a.localeCompare(b, "en"));
    const chips = values.map(([value, n]) =>
      el(
        "button",
        {
          type: "button",
          "data-key": `value ${k}=${value}`,
          "aria-pressed": String(on(value)),
          onclick: () => flip(value),
        },
        `${value.length > 60 ? value.slice(0, 59) + "…" : value} (${n})`,
      ),
    );
    return [el("code", {}, k), el("div", { class: "chips" }, ...chips)];
  });
  put("keys", ...rows);
}

function drawSamples(shown) {
  const list = [...shown].filter((run) => Object.keys(run.samples).length);
  const counts = new Map();
  for (const run of list) for (const s of Object.keys(run.samples)) counts.set(s, (counts.get(s) || 0) + 1);
  const steps = [...counts.keys()].sort((a, b) => a - b);
  const common = steps.filter((s) => counts.get(s) === list.length);
  const step = counts.has(state.step) || state.step === "last" ? state.step : common.at(-1) || "last";
  const choice = document.getElementById("step");
  choice.replaceChildren(
    el("option", { value: "last" }, "the last of each run"),
    ...steps.map((s) =>
      el(
        "option",
        { value: s },
        `step ${Number(s).toLocaleString("en")}${counts.get(s) < list.length ? ` (${counts.get(s)} of ${list.length})` : ""}`,
      ),
    ),
  );
  choice.value = step;
  choice.disabled = !list.length;
  const cards = list.map((run) => {
    const at =
      step === "last"
        ? Object.keys(run.samples)
            .sort((a, b) => a - b)
            .at(-1)
        : step;
    const texts = run.samples[at];
    const head = el(
      "h3",
      {},
      key(lookOf(run)),
      ...badge(run.row.run),
      run.row.run,
      ...(step === "last" ? [el("span", { class: "soft" }, `step ${at}`)] : []),
      el("span", { class: "soft what", title: describe(run) }, describe(run)),
    );
    return el(
      "div",
      { class: "card" },
      head,
      ...(texts
        ? texts.map((text) => el("pre", {}, text))
        : [el("p", { class: "soft", style: "padding: 0 .7rem" }, "no sample at this step")]),
    );
  });
  put("cards", ...(cards.length ? cards : [el("p", { class: "soft" }, "the runs drawn above have no samples")]));
}

function draw() {
  const left = filtered(),
    shown = shownRuns(left),
    at = document.activeElement.dataset.key; // keep the keyboard focus
  drawControls(left, shown);
  drawLegend(left, shown);
  drawChart(runs.filter((run) => shown.has(run)));
  drawTable(left, shown);
  drawDifferences();
  drawSamples(shown);
  if (at) document.querySelector(`[data-key="${CSS.escape(at)}"]`)?.focus({ preventScroll: true });
}

function build() {
  const best = runs.find((run) => run.row.run === data.best);
  const metric = data.by.replace("best ", "");
  const said = best
    ? `Best by ${metric}: ${best.row.run}, ${best.row[data.by].toFixed(4)} at step ${best.row["best step"].toLocaleString("en")}`
    : "No run has been validated yet";
  const menu = (id, choices, act) =>
    el(
      "select",
      { id, onchange: (event) => act(event.target.value) },
      ...Object.entries(choices).map(([value, name]) => el("option", { value }, name)),
    );
  const check = (id, name) =>
    el(
      "label",
      {},
      el("input", { id, type: "checkbox", onchange: (event) => set({ [id]: event.target.checked ? "1" : "" }) }),
      name,
    );
  const bands = el(
    "label",
    {},
    "seeds",
    menu("bands", BANDS, (value) => set({ bands: value })),
  );
  bands.hidden = !groups.length;
  const failed = runs.filter((run) => run.row.status === "failed" && run.error);
  const why = failed.slice(0, 5).map((run) => el("p", { class: "note" }, `${run.row.run} failed: ${run.error}`));
  if (failed.length > 5)
    why.push(el("p", { class: "note" }, `${failed.length - 5} more failed: hover over their status`));
  put(
    "page",
    el("h1", {}, data.title),
    el("p", { class: "soft" }, said),
    ...data.notes.map((note) => el("p", { class: "note" }, `Note: ${note}`)),
    el(
      "div",
      { class: "bar" },
      el("label", { for: "where" }, "only"),
      el("input", {
        id: "where",
        type: "search",
        placeholder: "status=finished optimizer.lr=0.001 seconds<60",
        title: "column=value, column<value, column>value, or part of a name; a run must match all words",
        oninput: (event) => set({ where: event.target.value }),
      }),
      el("span", { id: "count", class: "soft" }),
    ),
    el(
      "section",
      {},
      el("div", { id: "metrics", class: "bar tabs" }),
      el(
        "div",
        { class: "bar" },
        el(
          "label",
          {},
          "over",
          menu("x", { steps: "steps", tokens: "tokens", seconds: "seconds" }, (value) =>
            set({ x: value, from: "", to: "" }),
          ),
        ),
        check("logx", "log x"),
        check("logy", "log y"),
        el(
          "label",
          { title: "exponential mean of noisy curves; the logged points are drawn below it" },
          "smoothing",
          el("input", {
            id: "smooth",
            type: "range",
            min: 0,
            max: 0.99,
            step: 0.01,
            oninput: (event) => set({ smooth: event.target.value }),
          }),
          el("output"),
        ),
        bands,
        el("button", { id: "whole", type: "button", onclick: () => set({ from: "", to: "" }) }, "whole range"),
      ),
      el(
        "div",
        { class: "plot" },
        el(
          "div",
          { class: "figure" },
          svg("svg", { id: "chart", role: "img", "aria-label": "curves" }),
          el("div", { id: "tip", hidden: true }),
        ),
        el("aside", {}, el("div", { id: "choose", class: "bar tabs" }), el("ul", { id: "legend" })),
      ),
      el(
        "p",
        { class: "soft" },
        `Drag the mouse over the curves to zoom in; double-click to reset.${data.thinned > 1 ? ` Long curves show only some of their points, down to one in ${data.thinned}.` : ""}`,
      ),
    ),
    el("section", {}, el("h2", {}, "Runs"), el("div", { class: "wide" }, el("table", { id: "runs" })), ...why),
    ...(data.keys.length
      ? [
          el(
            "section",
            {},
            el("h2", {}, "Differences in configuration"),
            el("p", { class: "soft" }, "Click a value to show only its runs."),
            el("div", { id: "keys", class: "keys" }),
          ),
        ]
      : [el("div", { id: "keys" })]),
    el(
      "section",
      {},
      el("h2", {}, "Samples"),
      el(
        "div",
        { class: "bar" },
        el(
          "label",
          {},
          "at",
          menu("step", {}, (value) => set({ step: value })),
        ),
      ),
      el("div", { id: "cards", class: "cards" }),
    ),
  );
  const chart = document.getElementById("chart");
  zoom(chart);
  draw();
  dark.addEventListener("change", draw);
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth !== width) draw(); // the bars of a phone browser only change the height
    width = innerWidth;
  });
  addEventListener("hashchange", () => {
    state = read();
    draw();
  });
}

build();
