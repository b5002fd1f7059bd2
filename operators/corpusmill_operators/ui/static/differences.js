// Before, program and after of sampled documents: step through them, filter by reason, open what the tables hold of one.

import { h, Message, React, Section, Table } from "./elements.js";
import { count, stageName } from "./figures.js";
import { lineDifferences } from "./line_differences.js";
import { useLoaded } from "./loading.js";

const ALL = "all reasons";
const STEPS = { ArrowRight: 1, j: 1, ArrowLeft: -1, k: -1 };

export function Differences({ dagId, runId, examples, leftOut }) {
  const [reason, setReason] = React.useState(ALL);
  const [at, setAt] = React.useState(0);
  const shown = examples.filter((example) => reason === ALL || example.reason === reason);
  const place = Math.min(at, Math.max(0, shown.length - 1));
  const step = (by) => setAt(Math.max(0, Math.min(shown.length - 1, place + by)));
  const onKeyDown = (event) => {
    if (/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) || event.ctrlKey || event.metaKey || event.altKey) return;
    if (STEPS[event.key]) { step(STEPS[event.key]); event.preventDefault(); }
  };
  const title = "Before, program, after";
  if (!examples.length) {
    return h(Section, { title }, h("p", null,
      "There are no sampled documents: no refiner changed or removed a document of this run, its refinement was not committed, or a newer run has replaced its tables."));
  }
  const example = shown[place];
  const rest = leftOut ? ` ${count(leftOut)} more did not fit into the report.` : "";
  return h(Section, { title, note: `${count(examples.length)} sampled documents that a refiner changed or removed.${rest} Arrow keys, or j and k, step through them.` },
    h("div", { className: "cq-differences", tabIndex: 0, role: "group", "aria-label": "Sampled documents; left and right arrow keys step", onKeyDown },
      h("div", { className: "cq-controls" },
        h("button", { type: "button", onClick: () => step(-1), disabled: place === 0 }, "Previous document"),
        h("button", { type: "button", onClick: () => step(1), disabled: place >= shown.length - 1 }, "Next document"),
        h("label", null, "Reason ",
          h("select", { value: reason, onChange: (event) => { setReason(event.target.value); setAt(0); } },
            reasons(examples).map(([name, n]) => h("option", { key: name, value: name }, `${name} (${n})`))))),
      h("p", { "aria-live": "polite", className: "cq-where" },
        `Document ${place + 1} of ${shown.length}: ${example.reason}`, example.stage ? `, ${stageName(example.stage).toLowerCase()}` : ""),
      h(Difference, { key: example.doc_id, example }),
      h(Explanation, { key: `explain-${example.doc_id}`, dagId, runId, docId: example.doc_id })));
}

function reasons(examples) {
  const counts = new Map();
  examples.forEach(({ reason }) => counts.set(reason, (counts.get(reason) ?? 0) + 1));
  return [[ALL, examples.length], ...[...counts].sort((a, b) => b[1] - a[1])];
}

function Difference({ example }) {
  const { before, after } = React.useMemo(() => lineDifferences(example.before, example.after), [example]);
  const removed = before.filter((line) => line.changed).length, added = after.filter((line) => line.changed).length;
  return h("div", null,
    h("p", { className: "cq-url" }, example.url),
    h("p", { className: "cq-note" },
      `${count(removed)} of ${count(before.length)} lines removed or changed`, added ? `, ${count(added)} new` : "", ". Lines are counted from 0.",
      example.cut ? " The texts are cut; the tables hold them whole." : ""),
    h("div", { className: "cq-columns" },
      h(Column, { title: "Before", lines: before, mark: "del", numbered: true }),
      h(Column, { title: "Program", lines: (example.program || "(none)").split("\n").map((text) => ({ text })) }),
      after.length ? h(Column, { title: "After", lines: after, mark: "ins" })
        : h("div", { className: "cq-column" }, h("h3", null, "After"), h("p", { className: "cq-note cq-inset" }, "The document was removed."))));
}

function Column({ title, lines, mark, numbered }) {
  return h("div", { className: "cq-column" }, h("h3", null, title),
    h("div", { className: `cq-lines${numbered ? " cq-numbered" : ""}`, tabIndex: 0, role: "region", "aria-label": title },
      lines.map((line, i) => h("div", { key: i, className: line.changed ? `cq-line cq-${mark}` : "cq-line" },
        numbered ? h("span", { className: "cq-line-number", "aria-hidden": true }, i) : null,
        line.changed ? h(mark, null, line.text || "\u00a0") : h("span", null, line.text || "\u00a0")))));
}

function Explanation({ dagId, runId, docId }) {
  const [open, setOpen] = React.useState(false);
  const loaded = useLoaded(open ? ["runs", dagId, runId, "documents", docId] : null);
  return h("div", { className: "cq-explanation" },
    h("button", { type: "button", "aria-expanded": open, onClick: () => setOpen(!open) }, open ? "Close the explanation" : "Explain this document"),
    open && loaded.error ? h(Message, { kind: "error" }, loaded.error) : null,
    open && !loaded.data && !loaded.error ? h("p", { role: "status" }, "Reading the tables\u2026") : null,
    open && loaded.data ? h(Rows, { found: loaded.data }) : null);
}

function Rows({ found }) {
  if (!found.found) return h(Message, null, `The tables of this recipe hold nothing of document ${found.doc_id} any more.`);
  return h("div", null,
    h("p", { role: "status" }, `Document ${found.doc_id}: ${found.published ? "published" : "not published"}.`),
    found.tables.map(({ table, rows }) => h("details", { key: table, open: table.endsWith("refinements") },
      h("summary", null, `Table ${table}, ${rows.length} ${rows.length === 1 ? "row" : "rows"}`),
      rows.map((row, i) => h(Table, { key: i, hideCaption: true, caption: `${table}${rows.length > 1 ? `, row ${i + 1} of ${rows.length}` : ""}`,
        columns: [{ title: "Column" }, { title: "Value", className: "cq-value" }],
        rows: Object.entries(row).map(([name, value]) => [name, cell(value)]) })))));
}

function cell(value) {
  if (typeof value === "number" && !Number.isInteger(value)) return String(Number(value.toPrecision(6)));
  return typeof value === "object" ? JSON.stringify(value, null, 1) : String(value);
}
