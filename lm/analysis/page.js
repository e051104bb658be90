// Draws every figure of lm/analysis/figures.py from the data of the page.
const data = JSON.parse(document.getElementById("data").textContent);
const page = document.getElementById("page");
const WIDE = 3; // characters of a column label from which it is turned
const charts = []; // functions that draw a chart again

const number = (v) => (v === null ? "–" : Math.abs(v) >= 0.0995 || v === 0 ? v.toFixed(3) : v.toPrecision(2));
const largest = (values) => max([0, ...values.flat().map((v) => Math.abs(v ?? 0))]) || 1;

function heatmap(figure) {
  const top = largest(figure.values);
  const value = el("p", { class: "value soft" }, "Point at a cell to see its number.");
  const turned = figure.columns.some((name) => [...name].length > WIDE) ? "turn" : "";
  const head = figure.columns.map((name) => el("th", { class: turned }, el("span", {}, name)));
  const body = figure.values.map((row, i) => {
    const cells = row.map((v, j) => {
      const cell = el("td", {}, figure.texts ? figure.texts[i][j] : "");
      cell.style.setProperty("--a", v === null ? 0 : (Math.abs(v) / top) * 0.85);
      cell.classList.toggle("less", v < 0);
      cell.dataset.says = `${figure.rows[i]} → ${figure.columns[j]}: ${number(v)} ${figure.unit}`;
      return cell;
    });
    return el("tr", {}, el("th", {}, figure.rows[i]), ...cells);
  });
  const table = el(
    "table",
    { class: "map" },
    el("thead", {}, el("tr", {}, el("th"), ...head)),
    el("tbody", {}, ...body),
  );
  for (const event of ["pointerover", "click"])
    table.addEventListener(event, ({ target }) => {
      if (target.dataset.says) value.textContent = target.dataset.says;
    });
  return [el("div", { class: "scroll" }, table), value];
}

function thumbnail(values) {
  const canvas = el("canvas", { width: values.length, height: values.length });
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
  const large = el("div");
  const buttons = names.map((name) =>
    el(
      "button",
      { type: "button", title: `show ${name}`, onclick: () => open(name) },
      thumbnail(figure.patterns[name]),
      name,
    ),
  );
  function open(name) {
    buttons.forEach((button, i) => button.setAttribute("aria-pressed", names[i] === name));
    const one = { rows: figure.tokens, columns: figure.tokens, values: figure.patterns[name], unit: "attention" };
    const title = el("h3", {}, `${name}: each row is a token that looks at earlier ones`);
    large.replaceChildren(title, ...heatmap(one));
  }
  open(names[0]);
  return [el("div", { class: "grid" }, ...buttons), large];
}

function bars(figure) {
  const low = min([0, ...figure.values]);
  const span = max([0, ...figure.values]) - low || 1;
  const rows = figure.names.flatMap((name, i) => {
    const v = figure.values[i];
    const bar = el("i", { class: v < 0 ? "less" : "" });
    bar.style.left = `${((Math.min(0, v) - low) / span) * 100}%`;
    bar.style.width = `${(Math.abs(v) / span) * 100}%`;
    return [el("code", {}, name), el("div", {}, bar), el("span", {}, number(v))];
  });
  return [el("div", { class: "bars" }, ...rows), el("p", { class: "soft" }, figure.unit)];
}

function lines(figure) {
  const names = Object.keys(figure.curves);
  const box = el("div", { class: "lines" });
  const legend = el("p", { class: "bar" });
  const draw = lineChart(box);
  charts.push(() => {
    const series = names.map((name, i) => {
      const known = [...figure.x.keys()].filter((k) => figure.curves[name][k] !== null);
      return { name, look: look(i), x: known.map((k) => figure.x[k]), y: known.map((k) => figure.curves[name][k]) };
    });
    legend.replaceChildren(...series.map((s) => el("span", {}, key(s.look), ` ${s.name}`)));
    const drawn = series.filter((s) => s.x.length);
    draw(drawn, { xTitle: figure.x_unit, yTitle: figure.unit, empty: "nothing was measured" });
  });
  return [legend, box];
}

const DRAW = { Heatmap: heatmap, Heads: heads, Bars: bars, Lines: lines };
page.replaceChildren(el("h1", {}, data.title), ...data.notes.map((note) => el("p", { class: "soft" }, note)));
for (const figure of data.figures) page.append(el("h2", {}, figure.title), ...DRAW[figure.kind](figure));
page.append(el("h2", {}, "Numbers"), el("pre", { class: "table" }, data.table));
const drawCharts = () => charts.forEach((draw) => draw());
drawCharts();
dark.addEventListener("change", drawCharts);
addEventListener("resize", drawCharts);
