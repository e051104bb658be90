// Numbers for axes and readers.

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
