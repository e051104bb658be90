"use strict";

// Draws every figure of lm/analysis/figures.py from the data of the page.
const data = JSON.parse(document.getElementById("data").textContent);
const page = document.getElementById("page");
const COLORS = ["#1f6fd6", "#e8770a", "#159a58", "#d4313f", "#8a55d9", "#0aa3b5", "#b58a00", "#d9459b"];
const WIDE = 3; // characters of a column label from which it is turned

function make(tag, props = {}, ...children) {
  const node = Object.assign(document.createElement(tag), props);
  node.append(...children);
  return node;
}

const number = (v) => (v === null ? "–" : Math.abs(v) >= 0.0995 || v === 0 ? v.toFixed(3) : v.toPrecision(2));
const sizes = (values) => values.flat().filter((v) => v !== null).map(Math.abs);
const most = (values) => sizes(values).reduce((a, b) => Math.max(a, b), 0) || 1;

function heatmap(figure) {
  const top = most(figure.values);
  const value = make("p", { className: "value soft", textContent: "Point at a cell to see its number." });
  const turned = figure.columns.some((name) => [...name].length > WIDE) ? "turn" : "";
  const head = make("tr", {}, make("th"));
  for (const name of figure.columns) head.append(make("th", { className: turned }, make("span", { textContent: name })));
  const body = make("tbody");
  figure.values.forEach((row, i) => {
    const line = make("tr", {}, make("th", { textContent: figure.rows[i] }));
    row.forEach((v, j) => {
      const cell = make("td", { textContent: figure.texts ? figure.texts[i][j] : "" });
      cell.style.setProperty("--a", v === null ? 0 : (Math.abs(v) / top) * 0.85);
      cell.classList.toggle("less", v < 0);
      cell.dataset.says = `${figure.rows[i]} → ${figure.columns[j]}: ${number(v)} ${figure.unit}`;
      line.append(cell);
    });
    body.append(line);
  });
  const table = make("table", { className: "map" }, make("thead", {}, head), body);
  for (const event of ["pointerover", "click"])
    table.addEventListener(event, ({ target }) => {
      if (target.dataset.says) value.textContent = target.dataset.says;
    });
  return [make("div", { className: "scroll" }, table), value];
}

function thumbnail(values) {
  const canvas = make("canvas", { width: values.length, height: values.length });
  const ink = getComputedStyle(document.documentElement).getPropertyValue("--fill");
  const context = canvas.getContext("2d");
  values.forEach((row, i) =>
    row.forEach((v, j) => {
      context.fillStyle = `rgba(${ink}, ${v})`;
      context.fillRect(j, i, 1, 1);
    }),
  );
  return canvas;
}

function heads(figure) {
  const names = Object.keys(figure.patterns);
  const large = make("div");
  const buttons = names.map((name) =>
    make("button", { type: "button", title: `show ${name}`, onclick: () => open(name) }, thumbnail(figure.patterns[name]), name),
  );
  function open(name) {
    buttons.forEach((button, i) => button.setAttribute("aria-pressed", names[i] === name));
    const one = { rows: figure.tokens, columns: figure.tokens, values: figure.patterns[name], unit: "attention" };
    large.replaceChildren(make("h3", { textContent: `${name}: each row is a token that looks at earlier ones` }), ...heatmap(one));
  }
  open(names[0]);
  return [make("div", { className: "grid" }, ...buttons), large];
}

function bars(figure) {
  const low = Math.min(0, ...figure.values);
  const high = Math.max(0, ...figure.values);
  const span = high - low || 1;
  const box = make("div", { className: "bars" });
  figure.names.forEach((name, i) => {
    const v = figure.values[i];
    const bar = make("i", { className: v < 0 ? "less" : "" });
    bar.style.left = `${((Math.min(0, v) - low) / span) * 100}%`;
    bar.style.width = `${(Math.abs(v) / span) * 100}%`;
    box.append(make("code", { textContent: name }), make("div", {}, bar), make("span", { textContent: number(v) }));
  });
  return [box, make("p", { className: "soft", textContent: figure.unit })];
}

function lines(figure) {
  const W = 800, H = 320, L = 60, B = 40, R = 10, T = 10;
  const values = Object.values(figure.curves).flat().filter((v) => v !== null);
  const [x0, x1] = [Math.min(...figure.x), Math.max(...figure.x)];
  const [y0, y1] = [Math.min(0, ...values), Math.max(...values)];
  const px = (x) => L + ((x - x0) / (x1 - x0 || 1)) * (W - L - R);
  const py = (y) => H - B - ((y - y0) / (y1 - y0 || 1)) * (H - B - T);
  const parts = [];
  for (let i = 0; i <= 4; i++) {
    const [x, y] = [x0 + ((x1 - x0) * i) / 4, y0 + ((y1 - y0) * i) / 4];
    parts.push(`<line x1="${L}" x2="${W - R}" y1="${py(y)}" y2="${py(y)}"/>`);
    parts.push(`<text x="${L - 6}" y="${py(y) + 4}" text-anchor="end">${+y.toPrecision(3)}</text>`);
    const anchor = i === 4 ? "end" : "middle";
    parts.push(`<text x="${px(x)}" y="${H - B + 18}" text-anchor="${anchor}">${+x.toPrecision(4)}</text>`);
  }
  const legend = make("p");
  Object.entries(figure.curves).forEach(([name, curve], i) => {
    const points = curve.map((v, k) => (v === null ? "" : `${px(figure.x[k])},${py(v)}`)).filter(Boolean);
    const color = COLORS[i % COLORS.length];
    parts.push(`<path stroke="${color}" d="M${points.join("L")}"/>`);
    const key = make("span", { textContent: `${i ? "   " : ""}— ${name}` });
    key.style.color = color;
    legend.append(key);
  });
  parts.push(`<text x="${(L + W) / 2}" y="${H - 4}" text-anchor="middle"></text>`);
  const box = make("div", { innerHTML: `<svg class="lines" viewBox="0 0 ${W} ${H}">${parts.join("")}</svg>` });
  box.querySelector("svg text:last-child").textContent = figure.x_unit;
  return [legend, box, make("p", { className: "soft", textContent: figure.unit })];
}

const DRAW = { Heatmap: heatmap, Heads: heads, Bars: bars, Lines: lines };
page.replaceChildren(make("h1", { textContent: data.title }));
for (const note of data.notes) page.append(make("p", { className: "soft", textContent: note }));
for (const figure of data.figures) page.append(make("h2", { textContent: figure.title }), ...DRAW[figure.kind](figure));
page.append(make("h2", { textContent: "Numbers" }), make("pre", { className: "table", textContent: data.table }));
