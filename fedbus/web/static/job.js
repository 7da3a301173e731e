// The page of one job: takes patches of what has changed, and touches nothing else.
import { clock, Curve, Histogram, Lines, short } from "./charts.js";

const MOST_LINES = 500;
const MOST_BARS = 16;
const ANNOUNCE_MS = 15000;
const root = document.getElementById("job");
const find = (selector) => root.querySelector(selector);
const link = document.getElementById("link");

const curves = new Map();
const cells = new Map();
const words = new Map([...root.querySelectorAll("[data-word]")].map((element) => [element.dataset.word, element]));
let staleness = [];
let drawn = new Set(root.dataset.sites.split(",").filter(Boolean));
let source = null;

const put = (element, text) => {
  if (element && element.textContent !== text) element.textContent = text;
};

// words and states

const LOOKS = { running: "good", finishing: "good", online: "good", finished: "done", failed: "problem", lost: "problem", aborted: "warning", "waiting for sites": "warning" };
const setState = (element, state) => {
  element.className = [...element.classList].filter((name) => !Object.values(LOOKS).includes(name)).join(" ");
  if (LOOKS[state]) element.classList.add(LOOKS[state]);
  put(element, state);
};

const takeWords = (changed) => {
  for (const [name, text] of Object.entries(changed)) {
    if (name === "state") setState(words.get(name), text);
    else put(words.get(name), text);
  }
  if (changed.waiting) announceSoon();
};

// what changes is read out now and then, not every second
let announced = 0;
const announceSoon = () => {
  if (announced) return;
  announced = setTimeout(() => {
    announced = 0;
    put(document.getElementById("aloud"), words.get("waiting")?.textContent ?? "");
  }, ANNOUNCE_MS);
};

const takeBuffer = ([have, size]) => {
  const bar = document.getElementById("buffer");
  if (!bar || have === undefined) return;
  bar.max = Math.max(1, size ?? have);
  bar.value = have;
};

// the table of sites

const rowOf = (site) => {
  if (cells.has(site)) return cells.get(site);
  const body = document.getElementById("rows");
  let row = [...body.rows].find((one) => one.dataset.site === site);
  if (!row) {
    row = document.getElementById("row").content.firstElementChild.cloneNode(true);
    row.dataset.site = site;
    put(row.querySelector("span"), site);
    row.querySelector("input").dataset.draw = site;
    const after = [...body.rows].find((one) => one.dataset.site > site);
    body.insertBefore(row, after ?? null);
  }
  const found = new Map([...row.querySelectorAll("[data-cell]")].map((cell) => [cell.dataset.cell, cell]));
  cells.set(site, found);
  return found;
};

const takeRows = (rows, gone) => {
  for (const [site, row] of Object.entries(rows)) {
    const found = rowOf(site);
    for (const [name, text] of Object.entries(row)) {
      if (name === "state") setState(found.get(name).firstElementChild ?? found.get(name), text);
      else put(found.get(name), text);
    }
  }
  for (const site of gone) {
    find(`[data-site="${CSS.escape(site)}"]`)?.remove();
    cells.delete(site);
  }
};

// influence: two bars a site, what it has and what its examples alone would give it

const percent = (part) => `${(100 * (part ?? 0)).toFixed(part < 0.1 ? 1 : 0)}%`;

const takeInfluence = (influence) => {
  const place = document.getElementById("influence");
  const all = Object.entries(influence).sort((one, other) => other[1][0] - one[1][0]);
  const shown = all.slice(0, MOST_BARS);
  const most = Math.max(0.01, ...shown.map(([, [has, share]]) => Math.max(has ?? 0, share ?? 0)));
  const lines = shown.map(([site, [has, share]]) => {
    const line = document.createElement("li");
    const name = document.createElement("span");
    const bars = document.createElement("span");
    const number = document.createElement("span");
    bars.className = "two";
    for (const part of [has ?? 0, share ?? 0]) {
      const bar = document.createElement("span");
      bar.style.width = `${(100 * part) / most}%`;
      bars.append(bar);
    }
    name.textContent = site;
    number.textContent = `${percent(has)} of ${percent(share)}`;
    line.append(name, bars, number);
    return line;
  });
  place.replaceChildren(...lines);
  put(document.getElementById("influence-more"), all.length > MOST_BARS ? `and ${all.length - MOST_BARS} more sites, in the table below` : "");
};

// what has happened, the newest first

const takeLog = (lines) => {
  const log = document.getElementById("log");
  const items = lines.map(({ at, kind, site, text }) => {
    const item = document.createElement("li");
    const [time, which, said] = ["time", "span", "span"].map((tag) => document.createElement(tag));
    time.textContent = clock(at);
    time.dateTime = new Date(at * 1000).toISOString();
    which.className = "kind";
    which.textContent = kind.replaceAll("-", " ");
    said.className = "text";
    said.textContent = text || site;
    item.append(time, which, said);
    return item;
  });
  log.prepend(...items.reverse());
  while (log.childElementCount > MOST_LINES) log.lastElementChild.remove();
};

// curves

const curve = (name) => curves.get(name) ?? curves.set(name, new Curve()).get(name);
const byTime = () => document.getElementById("axis").value === "time";
const names = (kind) => [...curves].filter(([name]) => name === kind || name.startsWith(`${kind}:`)).flatMap(([, one]) => Object.keys(one.columns));
const ofSites = (kind, column) =>
  [...drawn].sort().flatMap((site, number) => {
    const found = curves.get(`${kind}:${site}`);
    return found?.columns[column] ? [{ label: site, curve: found, column, main: false, number }] : [];
  });
const metricLines = () => {
  const column = document.getElementById("metric").value;
  const means = curves.get("means");
  const all = means?.columns[column] ? [{ label: "mean of all sites", curve: means, column, main: true }] : [];
  return column ? [...all, ...ofSites("score", column)] : [];
};
const lossLines = () => {
  const known = names("training");
  const column = known.includes("loss") ? "loss" : known[0];
  return column ? ofSites("training", column) : [];
};
const charts = {
  metric: new Lines(document.getElementById("metric-chart"), metricLines, byTime),
  loss: new Lines(document.getElementById("loss-chart"), lossLines, byTime),
  staleness: new Histogram(document.getElementById("staleness"), () => staleness),
};

const PREFERRED = ["dice", "auc", "accuracy", "f1", "iou"];
const offerMetrics = () => {
  const select = document.getElementById("metric");
  const known = [...new Set([...names("means"), ...names("score")])].sort();
  const have = [...select.options].map((option) => option.value);
  if (known.length === have.length && known.every((name) => have.includes(name))) return;
  const chosen = have.includes(select.value) ? select.value : PREFERRED.find((name) => known.includes(name)) ?? known[0];
  select.replaceChildren(...known.map((name) => new Option(name, name, false, name === chosen)));
};

const takeCurves = (changed) => {
  for (const [name, part] of Object.entries(changed)) curve(name).put(part);
  offerMetrics();
  charts.metric.soon();
  charts.loss.soon();
};

// the stream

const take = (patch) => {
  if (patch.words) takeWords(patch.words);
  if (patch.rows || patch.gone) takeRows(patch.rows ?? {}, patch.gone ?? []);
  if (patch.buffer) takeBuffer(patch.buffer);
  if (patch.influence) takeInfluence(patch.influence);
  if (patch.log) takeLog(patch.log);
  if (patch.curves) takeCurves(patch.curves);
  if (patch.staleness) {
    staleness = patch.staleness;
    charts.staleness.soon();
  }
};

const say = (away, text) => {
  link.classList.toggle("away", away);
  put(link, text);
};

const open = () => {
  source?.close();
  const query = new URLSearchParams({ job: root.dataset.job, sites: [...drawn].join(",") });
  source = new EventSource(`/live?${query}`);
  let fresh = true;
  source.addEventListener("open", () => {
    fresh = true; // what comes first on a new line is everything
    say(false, "live");
  });
  source.addEventListener("error", () => say(true, "this page's server does not answer"));
  source.addEventListener("patch", (event) => {
    if (fresh) {
      curves.clear();
      document.getElementById("log").replaceChildren();
    }
    fresh = false;
    take(JSON.parse(event.data));
  });
  source.addEventListener("link", (event) => {
    const { trouble, reading } = JSON.parse(event.data);
    const since = trouble ? ` since ${clock(trouble.since)}` : "";
    say(Boolean(trouble), trouble ? `${trouble.what}${since}` : reading ? `reading ${short(reading)} events` : "live");
  });
  source.addEventListener("gone", (event) => {
    source.close();
    say(true, event.data);
  });
};

root.addEventListener("change", (event) => {
  const site = event.target.dataset?.draw;
  if (site) {
    if (event.target.checked) drawn.add(site);
    else drawn.delete(site);
    open();
  }
  charts.metric.soon();
  charts.loss.soon();
});
open();
