// A chart of curves: axes, bands, the values under the pointer, and zooming with the mouse.

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

const dark = matchMedia("(prefers-color-scheme: dark)");

// Ten colors, then the same colors dashed, then hues that differ from those of the neighbors.
function look(index) {
  const palette = dark.matches ? DARK : LIGHT;
  const hue = `hsl(${(index * 137.508) % 360} 65% ${(dark.matches ? 62 : 42) + 8 * ((index % 3) - 1)}%)`;
  return { color: index < 40 ? palette[index % 10] : hue, dash: DASHES[Math.floor(index / 10) % 4] };
}

function key({ color, dash }) {
  const line = svg("line", { x1: 0, x2: 24, y1: 4, y2: 4, stroke: color, "stroke-dasharray": dash });
  return svg("svg", { class: "key", viewBox: "0 0 24 8", "aria-hidden": "true" }, line);
}

let clips = 0; // every clip path needs a name of its own

// Draw curves into a new chart and return a function that draws it: draw(series, view).
//
// A series is { name, look, x, y } and optionally step (for the tip), raw (values before smoothing), and lo, hi, n (a
// band and the number of curves in it). A view is { xTitle, yTitle, logx, logy, from, to, empty }: the titles of the
// axes, their scales, the visible range of x, and the text if there is nothing to draw. `where(s, i)`, `suffix(s, i,
// nearest)` and `note(nearest)` are functions of the view that word the tip. `zoomed(from, to)` is called when the user
// chooses a range, and without arguments when the user leaves it.
function lineChart(box, zoomed, attributes = {}) {
  const chart = svg("svg", { class: "chart", role: "img", "aria-label": "curves", ...attributes });
  const tip = el("div", { class: "tip", hidden: true });
  const clipName = `inside${clips++}`;
  let scale = null; // of the drawn chart, for the pointer
  box.classList.add("figure");
  box.replaceChildren(chart, tip);

  function draw(series, view) {
    const width = box.clientWidth;
    const height = Math.round(Math.max(270, Math.min(470, width * 0.52)));
    const margin = { left: 56, right: 14, top: 30, bottom: 42 };
    chart.setAttribute("viewBox", `0 0 ${width} ${height}`);
    chart.setAttribute("height", height);
    chart.replaceChildren();
    tip.hidden = true;
    scale = null;
    const { logx, logy, from = -Infinity, to = Infinity } = view;
    const inside = (s, i) => s.x[i] >= from && s.x[i] <= to;
    const xs = series.flatMap((s) => s.x.filter((_, i) => inside(s, i)));
    const ys = series
      .flatMap((s) => [s.y, s.lo || [], s.hi || []].flatMap((v) => v.filter((_, i) => inside(s, i))))
      .filter((y) => !logy || y > 0);
    if (!xs.length) {
      chart.append(svg("text", { class: "title", x: width / 2, y: height / 2, "text-anchor": "middle" }, view.empty));
      return;
    }
    const X = axis(min(xs), max(xs), logx, margin.left, width - margin.right, 0);
    const Y = axis(min(ys), max(ys), logy, height - margin.bottom, margin.top, 0.04);
    const bottom = height - margin.bottom;
    const middle = (margin.left + width - margin.right) / 2;
    drawAxes(X, Y, margin, width, height, view);
    chart.append(
      svg("text", { class: "title", x: 4, y: 16 }, view.yTitle + (logy ? ", log" : "")),
      svg("text", { class: "title", x: middle, y: height - 6, "text-anchor": "middle" }, view.xTitle + (logx ? ", log" : "")),
      svg(
        "clipPath",
        { id: clipName },
        svg("rect", {
          x: margin.left,
          y: margin.top - 4,
          width: width - margin.left - margin.right,
          height: bottom - margin.top + 8,
        }),
      ),
    );
    const body = svg("g", { "clip-path": `url(#${clipName})` });
    for (const s of [...series].reverse()) drawCurve(body, s, X, Y, logy); // the first one is drawn last, on top
    const over = svg("g");
    chart.append(body, over);
    scale = { X, Y, series, over, margin, width, bottom, view };
  }

  function drawAxes(X, Y, margin, width, height, { logx, logy }) {
    const bottom = height - margin.bottom;
    const yTicks = ticks(Y.low, Y.high, Math.max(3, Math.floor(height / 55)), logy);
    const yLabels = labels(yTicks);
    for (const [i, t] of yTicks.entries()) {
      chart.append(svg("line", { class: "grid", x1: margin.left, x2: width - margin.right, y1: Y.at(t), y2: Y.at(t) }));
      chart.append(svg("text", { x: margin.left - 7, y: Y.at(t) + 4, "text-anchor": "end" }, yLabels[i]));
    }
    const xTicks = ticks(X.low, X.high, Math.max(3, Math.floor(width / 95)), logx);
    const xLabels = labels(xTicks);
    for (const [i, t] of xTicks.entries()) {
      chart.append(svg("line", { class: "grid", x1: X.at(t), x2: X.at(t), y1: margin.top, y2: bottom }));
      chart.append(svg("text", { x: X.at(t), y: bottom + 17, "text-anchor": "middle" }, xLabels[i]));
    }
    chart.append(svg("line", { class: "axis", x1: margin.left, x2: width - margin.right, y1: bottom, y2: bottom }));
  }

  function drawCurve(body, s, X, Y, logy) {
    const point = (v, i) => `${X.at(s.x[i]).toFixed(1)} ${Y.at(v).toFixed(1)}`;
    const path = (values) => values.map((v, i) => `${i ? "L" : "M"}${point(v, i)}`).join("");
    if (s.lo) {
      const back = s.lo
        .map((v, i) => `L${point(logy ? Math.max(v, Y.low) : v, i)}`)
        .reverse()
        .join("");
      const style = `fill: ${s.look.color}; fill-opacity: .18; stroke: none`;
      body.append(svg("path", { d: path(s.hi) + back + "Z", style }));
    }
    if (s.raw && s.raw !== s.y) body.append(svg("path", { class: "raw", d: path(s.raw), stroke: s.look.color }));
    s.path = svg("path", { d: path(s.y), stroke: s.look.color, "stroke-dasharray": s.look.dash });
    body.append(s.path);
    if (s.x.length === 1) body.append(svg("circle", { cx: X.at(s.x[0]), cy: Y.at(s.y[0]), r: 3, fill: s.look.color }));
  }

  function hover(event) {
    if (!scale) return;
    const rect = chart.getBoundingClientRect();
    const px = event.clientX - rect.left;
    const py = event.clientY - rect.top;
    const { X, Y, series, over, margin, width, bottom, view } = scale;
    if (px < margin.left - 8 || px > width || py > bottom + 20) return leave();
    const found = series
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
    for (const s of series) s.path.classList.toggle("near", s === near.s);
    const around = ({ s, i }) => {
      if (s.lo) return ` [${exact(s.lo[i])}, ${exact(s.hi[i])}], n=${s.n[i]}`;
      return !s.raw || s.raw === s.y ? "" : ` (${exact(s.raw[i])})`;
    };
    const suffix = ({ s, i }) => (view.suffix ? view.suffix(s, i, near) : "");
    const rows = here.map((f) => {
      const figure = exact(f.s.y[f.i]) + (narrow ? "" : around(f) + suffix(f));
      return el(
        "tr",
        { class: f === near ? "near" : false },
        el("td", {}, key(f.s.look)),
        el("td", {}, f.s.name),
        el("td", {}, figure),
      );
    });
    const way = !near.s.raw || near.s.raw === near.s.y ? "" : "smoothed ";
    const wide = view.note ? view.note(near, way) : way && `${way}(as logged)`;
    const note = narrow ? `${way}${near.s.lo ? "mean" : ""}${around(near)}` : wide; // of the nearest line only
    tip.replaceChildren(
      el("div", { class: "soft" }, view.where ? view.where(near.s, near.i) : exact(near.s.x[near.i])),
      el("table", {}, ...rows),
      ...(hidden > 0 ? [el("div", { class: "soft" }, `and ${hidden} more`)] : []),
      el("div", { class: "soft" }, note),
    );
    tip.hidden = false;
    const left = near.px + 14 + tip.offsetWidth > width ? Math.max(0, near.px - 14 - tip.offsetWidth) : near.px + 14;
    tip.style.left = `${left}px`;
    tip.style.top = `${Math.max(0, Math.min(py - tip.offsetHeight / 2, bottom - tip.offsetHeight))}px`;
  }

  function leave() {
    tip.hidden = true;
    if (!scale) return;
    scale.over.replaceChildren();
    for (const s of scale.series) s.path.classList.remove("near");
  }

  let start = null; // of the range that is being chosen
  let range = null;
  const at = (event) => {
    const px = event.clientX - chart.getBoundingClientRect().left;
    return Math.max(scale.margin.left, Math.min(scale.width - scale.margin.right, px));
  };
  chart.addEventListener("pointerdown", (event) => {
    if (!zoomed || event.pointerType !== "mouse" || event.button || !scale) return;
    start = at(event);
    const height = scale.bottom - scale.margin.top;
    range = svg("rect", { class: "zoom", y: scale.margin.top, height, x: start, width: 0 });
    chart.append(range);
    chart.setPointerCapture(event.pointerId);
  });
  chart.addEventListener("pointermove", (event) => {
    if (start === null) return hover(event);
    range.setAttribute("x", Math.min(start, at(event)));
    range.setAttribute("width", Math.abs(at(event) - start));
  });
  chart.addEventListener("pointerup", (event) => {
    if (start === null) return;
    const [a, b] = [Math.min(start, at(event)), Math.max(start, at(event))];
    range.remove();
    start = null;
    if (b - a > 8) zoomed(rounded(scale.X.of(a)), rounded(scale.X.of(b)));
  });
  chart.addEventListener("pointerleave", () => start === null && leave());
  chart.addEventListener("dblclick", () => zoomed && zoomed());
  return draw;
}

const rounded = (value) => +value.toPrecision(6);
