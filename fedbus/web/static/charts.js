// Curves of a job, drawn with uPlot: kept as columns, joined by version when they are drawn, at most once a second.
/* global uPlot */

const DASHES = [[], [8, 4], [2, 3], [10, 3, 2, 3]];
const COLOURS = ["--accent", "--second", "--third", "--fourth"];
const DRAW_MS = 1000;
const HEIGHT = 260;

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
export const short = (value) => (value === null || value === undefined ? "" : Number(value.toPrecision(4)).toString());

/** Columns by version. `put` replaces what is there from index `start` on. */
export class Curve {
  constructor() {
    this.versions = [];
    this.at = [];
    this.columns = {};
  }

  put({ start, versions, at, columns }) {
    this.versions.length = this.at.length = Math.min(start, this.versions.length);
    for (const version of versions) this.versions.push(version);
    for (const moment of at) this.at.push(moment);
    for (const name of new Set([...Object.keys(this.columns), ...Object.keys(columns)])) {
      const column = (this.columns[name] ??= []);
      while (column.length < start) column.push(null);
      column.length = start;
      for (const value of columns[name] ?? versions.map(() => null)) column.push(value);
    }
  }

  /** The newest number of a column, and its version; null when there is none. */
  newest(name) {
    const column = this.columns[name] ?? [];
    for (let index = column.length - 1; index >= 0; index -= 1) {
      if (column[index] !== null) return { version: this.versions[index], value: column[index] };
    }
    return null;
  }

  /** x and y of a column without its gaps: sites score some versions only. */
  points(name, byTime) {
    const [xs, ys] = [[], []];
    const column = this.columns[name] ?? [];
    const axis = byTime ? this.at : this.versions;
    for (let index = 0; index < column.length; index += 1) {
      if (column[index] === null || (xs.length && axis[index] <= xs[xs.length - 1])) continue;
      xs.push(axis[index]);
      ys.push(column[index]);
    }
    return [xs, ys];
  }
}

class Chart {
  constructor(place) {
    this.place = place;
    this.plot = null;
    this.shape = "";
    this.due = 0;
    this.timer = 0;
    new ResizeObserver(() => this.plot?.setSize(this.size())).observe(place);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      this.shape = "";
      this.draw();
    });
  }

  size() {
    return { width: Math.max(200, this.place.clientWidth), height: HEIGHT };
  }

  /** Draw soon: many changes are one drawing, and none while nobody looks. */
  soon() {
    if (this.timer) return;
    this.timer = setTimeout(() => {
      this.timer = 0;
      this.due = performance.now() + DRAW_MS;
      if (document.hidden) document.addEventListener("visibilitychange", () => this.soon(), { once: true });
      else this.draw();
    }, Math.max(0, this.due - performance.now()));
  }

  axes(byTime, sizes) {
    const look = { stroke: css("--quiet"), grid: { stroke: css("--line"), width: 1 }, ticks: { stroke: css("--line"), width: 1 } };
    return [{ ...look, space: 70 }, { ...look, size: sizes, values: (_, ticks) => ticks.map(short) }];
  }

  show(shape, options, data, says) {
    this.place.setAttribute("aria-label", says);
    if (shape === this.shape && this.plot) {
      this.plot.setData(data);
      return;
    }
    this.shape = shape;
    this.plot?.destroy();
    this.place.textContent = "";
    this.plot = new uPlot({ ...this.size(), ...options }, data, this.place);
  }
}

/** Lines over versions or time: `lines()` gives [{label, curve, column, main, number}]; a site's number is its look in all charts. */
export class Lines extends Chart {
  constructor(place, lines, byTime) {
    super(place);
    this.lines = lines;
    this.byTime = byTime;
  }

  draw() {
    const lines = this.lines();
    const byTime = this.byTime();
    if (!lines.length) return;
    const joined = uPlot.join(lines.map((line) => line.curve.points(line.column, byTime)));
    const x = { label: byTime ? "time" : "version", value: (_, value) => (value === null ? "" : byTime ? clock(value) : `${value}`) };
    const options = {
      scales: { x: { time: byTime } },
      legend: { live: true, markers: { width: 0, fill: (plot, number) => plot.series[number].stroke(plot, number) } },
      cursor: { drag: { x: true, y: false } },
      axes: this.axes(byTime, 56),
      series: [x, ...lines.map((line) => this.series(line))],
    };
    const ends = lines.slice(0, 8).map((line) => [line.label, line.curve.newest(line.column)]);
    const says = ends.map(([label, end]) => (end ? `${label} ${short(end.value)} at ${end.version}` : `${label}: nothing yet`));
    const shape = [byTime, ...lines.map((line) => `${line.label} ${line.column} ${line.main}`)].join("|");
    this.show(shape, options, joined, says.join("; "));
  }

  series(line) {
    const look = line.main ? { stroke: css("--ink"), width: 3 } : { stroke: css(COLOURS[line.number % 4]), width: 1.5, dash: DASHES[Math.floor(line.number / 4) % 4] };
    return { label: line.label, spanGaps: true, points: { show: line.curve.versions.length < 2 }, value: (_, value) => short(value), ...look };
  }
}

/** How many updates had which staleness. */
export class Histogram extends Chart {
  constructor(place, counts) {
    super(place);
    this.counts = counts;
  }

  draw() {
    const counts = this.counts();
    if (!counts.length) return;
    const xs = counts.map((_, staleness) => staleness);
    const bars = uPlot.paths.bars({ size: [0.8, 60], align: 0 });
    const options = {
      scales: { x: { time: false, range: (_, __, most) => [-0.5, Math.max(most, 4) + 0.5] }, y: { range: (_, __, most) => [0, Math.max(1, most)] } },
      legend: { show: false },
      cursor: { show: false },
      axes: this.axes(false, 56).map((axis, number) => (number ? axis : { ...axis, incrs: [1, 2, 5, 10, 20] })),
      series: [{}, { stroke: css("--accent"), fill: css("--accent"), paths: bars, points: { show: false } }],
    };
    const says = counts.map((count, staleness) => `${count} updates ${staleness} versions old`).slice(0, 10).join("; ");
    this.show("histogram", options, [xs, counts], says);
  }
}

export const clock = (seconds) => new Date(seconds * 1000).toLocaleTimeString([], { hour12: false });
