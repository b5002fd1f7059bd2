// The few building blocks of all pages. Airflow's UI provides React; every text is a React text node, never markup.

export const React = globalThis.React;
export const h = React.createElement;

const STYLES = new URL("./corpus_quality.css", import.meta.url).href;
if (!document.querySelector(`link[href="${STYLES}"]`)) {
  const link = document.createElement("link");
  link.rel = "stylesheet";
  link.href = STYLES;
  document.head.append(link);
}

/** A titled part of a page. */
export function Section({ title, note, children }) {
  const id = React.useId();
  return h("section", { className: "cq-section", "aria-labelledby": id },
    h("h2", { id }, title),
    note ? h("p", { className: "cq-note" }, note) : null,
    children);
}

/** A sentence that stands out: kind is "info", "warning" or "error". */
export function Message({ kind = "info", title, children }) {
  return h("div", { className: `cq-message cq-${kind}`, role: kind === "error" ? "alert" : "status" },
    title ? h("strong", null, title) : null, title ? " " : null, children);
}

/**
 * A table with caption and scopes. columns: [{title, number, className}]; rows: arrays of texts or elements, whose first
 * cell heads its row.
 */
export function Table({ caption, columns, rows, hideCaption = false }) {
  const side = (i) => `${columns[i].number ? "cq-number" : ""} ${columns[i].className ?? ""}`.trim() || undefined;
  return h("div", { className: "cq-scroll", tabIndex: 0, role: "region", "aria-label": caption },
    h("table", { className: "cq-table" },
      h("caption", { className: hideCaption ? "cq-hidden" : undefined }, caption),
      h("thead", null, h("tr", null, columns.map((c, i) => h("th", { key: i, scope: "col", className: side(i) }, c.title)))),
      h("tbody", null, rows.map((cells, r) => h("tr", { key: r }, cells.map((cell, i) =>
        h(i === 0 ? "th" : "td", { key: i, scope: i === 0 ? "row" : undefined, className: side(i) }, cell)))))));
}

/** Pairs of a name and a value, without those that have none. */
export function Facts({ items }) {
  const known = items.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return h("dl", { className: "cq-facts" },
    known.map(([name, value]) => h("div", { key: name }, h("dt", null, name), h("dd", null, value))));
}

/** A page frame with its heading; what is shown while it loads, and what if it cannot be shown. */
export function Page({ title, loaded, children }) {
  return h("div", { className: "cq-page" },
    h("h1", null, title),
    loaded.error ? h(Message, { kind: "error" }, loaded.error) : null,
    !loaded.data && !loaded.error ? h("p", { role: "status" }, "Loading\u2026") : null,
    loaded.data ? children(loaded.data) : null);
}
