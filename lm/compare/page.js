// The page is a function of `data`, which is never changed, and `state`, which the address keeps after its #.
const data = JSON.parse(document.getElementById("data").textContent);
const runs = data.runs; // the best first
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

// The identity of a line: a run, or its group if bands are drawn.
const identity = (run) => (state.bands === "each" || run.group === null ? run.row.run : run.group);

function lookOf(run) {
  return look([...new Set(runs.map(identity))].indexOf(identity(run)));
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

let drawLines = null; // of the chart

function drawChart(list) {
  const spread = state.bands === "sd" ? "± deviation" : "min, max";
  const stepOf = (s, i) => `step ${s.step[i].toLocaleString("en")}`;
  drawLines(series(list), {
    xTitle: OVER[state.x],
    yTitle: `${state.y}, ${UNITS[state.y]}`,
    logx: state.logx,
    logy: state.logy,
    from: state.from === "" ? -Infinity : Number(state.from),
    to: state.to === "" ? Infinity : Number(state.to),
    empty: list.length ? `no ${state.y} over ${state.x} here` : "no run is selected",
    where: (s, i) => stepOf(s, i) + (state.x === "steps" ? "" : `, ${exact(s.x[i])} ${state.x}`),
    suffix: (s, i, near) =>
      state.x === "seconds" || s.x[i] === near.s.x[near.i] ? "" : ` at ${stepOf(s, i)}`,
    note: (near, way) => (near.s.lo ? `${way}mean [${spread}]` : way && `${way}(as logged)`),
  });
}

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
        el("div", { id: "curves" }),
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
  const zoomed = (from = "", to = "") => set({ from: String(from), to: String(to) });
  drawLines = lineChart(document.getElementById("curves"), zoomed, { id: "chart" });
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
