// Score histograms with cut lines, and the mix of languages and lengths. Charts are drawn by plotly from its package;
// each has its numbers as a table beside it.

import { h, React, Section, Table } from "./elements.js";
import { count, score, share } from "./figures.js";

const SCORES = {
  bits_per_byte: "Bits per byte", perplexity: "Perplexity", mean_nll: "Mean loss (nats per token)", el2n: "EL2N",
  memorization: "Memorization",
};
const PARTS = { pages: "All pages", cleaned: "Kept by the rules", published: "Published" };
/** The parts that a report has, in the order of the funnel. */
const inOrder = (found) => Object.keys(PARTS).filter((part) => found[part]).map((part) => [part, found[part]]);

let plotly;
/** Loads plotly's script once; null where the installation has none. */
function loadPlotly() {
  plotly ??= new Promise((resolve) => {
    const script = document.createElement("script");
    script.src = new URL("./plotly.min.js", import.meta.url).href;
    script.onload = () => resolve(globalThis.Plotly ?? null);
    script.onerror = () => resolve(null);
    document.head.append(script);
  });
  return plotly;
}

export function Charts({ report }) {
  const mix = report.mix;
  if (!mix || !(mix.scores.length || inOrder(mix.languages).length)) {
    return h(Section, { title: "Scores, languages, lengths" },
      h("p", null, report.funnel.length
        ? "There are no distributions: the run is of an older version, or a newer run had replaced its tables when the report was written."
        : "There are no distributions: no stage was finished."));
  }
  const part = mix.files_read < mix.files
    ? `Counted on ${count(mix.files_read)} of ${count(mix.files)} input files, evenly spaced.` : `Counted on all ${count(mix.files)} input files.`;
  return h(Section, { title: "Scores, languages, lengths", note: part },
    h("div", { className: "cq-charts" },
      mix.scores.map((found) => h(ScoreChart, { key: found.column, found })),
      h(MixChart, { title: "Languages", what: "language", parts: shares(mix.languages) }),
      h(MixChart, { title: "Length in characters", what: "length", parts: lengths(mix) })));
}

function ScoreChart({ found }) {
  const name = SCORES[found.column] ?? found.column;
  const cuts = found.cuts.flatMap((cut) => [cut.low, cut.high].filter((x) => x !== null).map((at) => ({ ...cut, at })));
  const middles = found.counts.map((_, i) => (found.edges[i] + found.edges[i + 1]) / 2);
  const one = found.cuts.length === 1 ? found.cuts[0] : null;
  const isKept = (x) => !one || ((one.low === null || x >= one.low) && (one.high === null || x <= one.high));
  const draw = (colors) => ({
    data: [{
      type: "bar", x: middles, y: found.counts, marker: { color: middles.map((x) => (isKept(x) ? colors.kept : colors.removed)) },
      hovertemplate: "%{x:.4g}: %{y}<extra></extra>",
    }],
    layout: {
      bargap: 0.04,
      xaxis: { title: { text: name }, range: visible(found, cuts) }, yaxis: { title: { text: "Documents" }, rangemode: "tozero" },
      shapes: cuts.map((cut) => ({ type: "line", x0: cut.at, x1: cut.at, yref: "paper", y0: 0, y1: 1, line: { color: colors.cut, width: 2, dash: "dash" } })),
      annotations: cuts.slice(0, 4).map((cut) => ({ x: cut.at, yref: "paper", y: 1, yanchor: "bottom", showarrow: false, text: `cut ${score(cut.at)}` })),
    },
  });
  return h(Chart, {
    title: name, draw, summary: scoreSummary(name, found),
    table: h(Table, { caption: `${name}: documents by score`, columns: [{ title: "From" }, { title: "To", number: true }, { title: "Documents", number: true }],
      rows: found.counts.map((n, i) => [score(found.edges[i]), score(found.edges[i + 1]), count(n)]) }),
  });
}

function visible(found, cuts) {
  const ends = [found.edges[0], found.edges[found.edges.length - 1], ...cuts.map((cut) => cut.at)];
  return [Math.min(...ends), Math.max(...ends)];
}

function scoreSummary(name, found) {
  const kept = found.cuts.map((cut) => {
    const stratum = cut.stratum && cut.stratum !== "*" ? ` (${cut.stratum})` : "";
    if (cut.low === null && cut.high === null) return `all${stratum}`;
    if (cut.low === null) return `up to ${score(cut.high)}${stratum}`;
    return cut.high === null ? `from ${score(cut.low)}${stratum}` : `${score(cut.low)} to ${score(cut.high)}${stratum}`;
  });
  const missing = found.missing ? ` ${count(found.missing)} have no score.` : "";
  const selection = kept.length ? ` Kept: ${kept.join("; ")}.` : " Not used by the selection.";
  return `Median ${score(found.median)}, from ${score(found.low)} to ${score(found.high)}.${selection}${missing}`;
}

/** Language counts as parts with the same names in the same order. */
function shares(languages) {
  const pages = languages.pages ?? {};
  const names = [...new Set(inOrder(languages).flatMap(([, counts]) => Object.keys(counts)))]
    .sort((a, b) => (pages[b] ?? 0) - (pages[a] ?? 0) || (a < b ? -1 : 1));
  return inOrder(languages).map(([part, counts]) => ({ part, names, counts: names.map((name) => counts[name] ?? 0) }));
}

function lengths(mix) {
  const edges = mix.length_edges;
  const short = (n) => (n >= 1000 ? `${n / 1000}k` : String(n));
  const names = edges.map((edge, i) => (i + 1 < edges.length ? `${short(edge)}\u2013${short(edges[i + 1])}` : `${short(edge)}+`));
  return inOrder(mix.lengths).map(([part, counts]) => ({ part, names, counts }));
}

function MixChart({ title, what, parts }) {
  if (!parts.length) return null;
  const sum = (counts) => counts.reduce((a, b) => a + b, 0);
  const names = parts[0].names;
  const draw = (colors) => ({
    data: parts.map(({ part, counts }, i) => ({
      type: "bar", name: PARTS[part] ?? part, x: names, y: counts.map((n) => 100 * n / Math.max(1, sum(counts))),
      marker: { color: colors.parts[i] }, hovertemplate: `%{x}: %{y:.1f} %<extra>${PARTS[part] ?? ""}</extra>`,
    })),
    layout: { barmode: "group", bargap: names.length < 4 ? 0.7 : 0.2, xaxis: { type: "category", tickangle: 0, tickfont: { size: 10 } }, yaxis: { title: { text: "% of documents" }, rangemode: "tozero" },
      legend: { orientation: "h", y: 1.18, x: 0 } },
  });
  const last = parts[parts.length - 1];
  const top = last.counts.indexOf(Math.max(...last.counts));
  return h(Chart, {
    title, draw,
    summary: `Most of ${(PARTS[last.part] ?? last.part).toLowerCase()}: ${names[top]} (${share(last.counts[top], sum(last.counts))}).`,
    table: h(Table, { caption: `${title}: documents by ${what}`,
      columns: [{ title }, ...parts.map(({ part }) => ({ title: PARTS[part] ?? part, number: true }))],
      rows: names.map((name, i) => [name, ...parts.map(({ counts }) => `${count(counts[i])} (${share(counts[i], sum(counts))})`)]) }),
  });
}

/** A chart with its summary in words and its numbers as a table; it follows the theme. */
function Chart({ title, draw, summary, table }) {
  const place = React.useRef(null);
  const [missing, setMissing] = React.useState(false);
  const theme = useTheme();
  React.useEffect(() => {
    let current = true;
    const node = place.current;
    loadPlotly().then((found) => {
      if (!current || !node) return;
      if (!found) { setMissing(true); return; }
      const { data, layout } = draw(palette(node));
      found.react(node, data, { ...frame(node), ...layout, xaxis: { ...frame(node).xaxis, ...layout.xaxis }, yaxis: { ...frame(node).yaxis, ...layout.yaxis } },
        { displayModeBar: false, responsive: true });
    });
    return () => { current = false; };
  }, [theme]);
  React.useEffect(() => () => { if (place.current) globalThis.Plotly?.purge(place.current); }, []);
  return h("figure", { className: "cq-chart" },
    h("h3", null, title),
    missing ? h("p", { className: "cq-note" }, "Charts need the package plotly on the API server; the numbers are in the table.")
      : h("div", { ref: place, className: "cq-plot", role: "img", "aria-label": `Chart: ${title}. ${summary}` }),
    h("figcaption", null, summary),
    h("details", { open: missing }, h("summary", null, `Numbers of the chart \u201c${title}\u201d`), table));
}

function useTheme() {
  const read = () => document.documentElement.className;
  const [theme, setTheme] = React.useState(read);
  React.useEffect(() => {
    const watch = new MutationObserver(() => setTheme(read()));
    watch.observe(document.documentElement, { attributes: true, attributeFilter: ["class"] });
    return () => watch.disconnect();
  }, []);
  return theme;
}

function palette(node) {
  const style = getComputedStyle(node);
  const color = (name) => style.getPropertyValue(name).trim();
  return {
    kept: color("--cq-kept"), removed: color("--cq-removed"), cut: color("--cq-cut"),
    parts: [color("--cq-removed"), color("--cq-middle"), color("--cq-kept")],
  };
}

function frame(node) {
  const style = getComputedStyle(node);
  const axis = { gridcolor: style.getPropertyValue("--cq-border").trim(), zeroline: false, automargin: true, fixedrange: true };
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: style.color, size: 12 },
    margin: { l: 50, r: 12, t: 28, b: 44 }, height: 260, xaxis: axis, yaxis: axis,
  };
}
