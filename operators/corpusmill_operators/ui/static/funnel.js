// The funnel from pages to published documents, each loss with its reasons, beside earlier runs.

import { h, Section, Table } from "./elements.js";
import { byCount, count, NONE, share, stageName, total } from "./figures.js";

const REASONS_SHOWN = 4;

export function Funnel({ report }) {
  const first = report.funnel[0]?.documents_kept ?? 0;
  const compared = report.compared ?? [];
  if (!report.funnel.length) {
    return h(Section, { title: "From pages to published documents" }, h("p", null, "No stage of this run was finished."));
  }
  const columns = [
    { title: "Stage" }, { title: "Documents", number: true }, { title: "Of all pages", className: "cq-bar-cell" },
    { title: "Characters", number: true }, { title: "Tokens", number: true }, { title: "Lost here, and why", className: "cq-wide" },
    ...compared.map((other) => ({ title: comparison(other), number: true })),
  ];
  const rows = report.funnel.map((step) => [
    stageName(step.stage),
    count(step.documents_kept) + (step.unit ? ` ${step.unit}s` : ""),
    step.unit ? NONE : h(Bar, { part: step.documents_kept, whole: first }),
    step.characters_kept ? count(step.characters_kept) : NONE,
    step.tokens_kept ? count(step.tokens_kept) : NONE,
    h(Losses, { step }),
    ...compared.map((other) => otherFigure(other, step)),
  ]);
  return h(Section, { title: "From pages to published documents", note: compared.length ? null :
    "There is no earlier published crawl of this recipe to compare with." },
    h(Table, { caption: `Documents that each stage of ${report.crawl} kept`, hideCaption: true, columns, rows }));
}

function comparison(other) {
  return other.what === "earlier run" ? `Run before this one (epoch ${other.epoch})` : `Crawl before (${other.crawl})`;
}

function otherFigure(other, step) {
  const same = other.steps.find((s) => s.stage === step.stage);
  const first = other.steps[0]?.documents_kept;
  if (!same) return NONE;
  return same.unit ? count(same.documents_kept) : `${count(same.documents_kept)} (${share(same.documents_kept, first)})`;
}

function Bar({ part, whole }) {
  const width = whole ? 100 * part / whole : 0;
  return h("div", { className: "cq-bar" },
    h("div", { className: "cq-bar-fill", style: { width: `${width}%` }, "aria-hidden": true }),
    h("span", null, share(part, whole)));
}

function Losses({ step }) {
  const reasons = byCount({ ...step.removed, ...step.quarantined });
  if (!reasons.length) return NONE;
  const shown = reasons.slice(0, REASONS_SHOWN).map(([name, n]) => `${count(n)} ${name}`).join(", ");
  if (reasons.length <= REASONS_SHOWN) return shown;
  const rest = total(Object.fromEntries(reasons.slice(REASONS_SHOWN)));
  return h("details", null,
    h("summary", null, `${shown}, and ${count(rest)} for ${reasons.length - REASONS_SHOWN} other reasons`),
    h("ul", { className: "cq-reasons" }, reasons.map(([name, n]) => h("li", { key: name }, `${count(n)} ${name}`))));
}
