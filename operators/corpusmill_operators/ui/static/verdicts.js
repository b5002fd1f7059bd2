// What the audit, the models and the selection said, in sentences; and what could not be processed.

import { h, Message, Section, Table } from "./elements.js";
import { byCount, count, stageName } from "./figures.js";
import { address } from "./loading.js";

export function Validation({ report, docs }) {
  const found = report.validation;
  if (!found) {
    return h(Section, { title: "Validation" },
      h("p", null, "The audit did not run: an earlier stage failed, or the same content was published already."));
  }
  const failed = found.failed ?? [], warnings = found.warnings ?? [];
  const verdict = found.passed
    ? `The audit passed: ${found.n_checks ?? "all"} checks, ${warnings.length || "none"} with a warning.`
    : `The audit failed: ${failed.length} of ${found.n_checks ?? "the"} checks forbid publication, ${warnings.length} warn. Readers still see the corpus as it was.`;
  return h(Section, { title: "Validation" },
    h(Message, { kind: found.passed ? (warnings.length ? "warning" : "success") : "error" }, verdict),
    h(Sentences, { title: "Failed", sentences: failed }),
    h(Sentences, { title: "Warnings", sentences: warnings }),
    docs ? h("p", null, h("a", { href: address(...docs), target: "_blank", rel: "noopener" }, "All checks in the Data Docs of this run")) : null);
}

function Sentences({ title, sentences }) {
  if (!sentences.length) return null;
  return h("div", null, h("h3", null, title),
    h("ul", { className: "cq-sentences" }, sentences.map((text, i) => h("li", { key: i }, h(Sentence, { text })))));
}

/** A check's sentence begins with its technical name; people want the subject first. */
function Sentence({ text }) {
  const parts = /^(expect_\w+|\w+)\(([^)]*)\): ([\s\S]*)$/.exec(text);
  if (!parts) return text;
  const [, kind, subject, rest] = parts;
  return h("span", null, h("strong", null, subject), `: ${rest} `, h("span", { className: "cq-muted" }, `(${kind})`));
}

export function Remarks({ sentences }) {
  if (!sentences?.length) return null;
  return h(Section, { title: "Models and selection" },
    h("ul", { className: "cq-sentences" }, sentences.map((text, i) => h("li", { key: i }, text))));
}

export function Quarantine({ report }) {
  const rows = report.funnel.flatMap((step) =>
    byCount(step.quarantined).map(([reason, n]) => [stageName(step.stage), reason, count(n)]));
  return h(Section, { title: "Quarantine",
    note: "Inputs that could not be processed; each is a row of ops.quarantine with its message and first bytes." },
    rows.length
      ? h(Table, { caption: "Quarantined inputs by stage and reason", hideCaption: true,
        columns: [{ title: "Stage" }, { title: "Reason" }, { title: "Inputs", number: true }], rows })
      : h("p", null, report.state === "success" ? "Nothing was quarantined."
        : "No finished stage quarantined anything; the tab of a failed shard shows its own inputs."));
}
