// The tab "Corpus quality" of a DAG run.

import { Charts } from "./charts.js";
import { Differences } from "./differences.js";
import { Facts, h, Message, Page } from "./elements.js";
import { count, time } from "./figures.js";
import { Funnel } from "./funnel.js";
import { useLoaded } from "./loading.js";
import { Quarantine, Remarks, Validation } from "./verdicts.js";

function CorpusQuality({ dagId, runId }) {
  const loaded = useLoaded(dagId && runId ? ["runs", dagId, runId] : null);
  return h(Page, { title: "Corpus quality", loaded }, ({ report, message, notices, docs, sentences }) => h("div", null,
    message ? h(Message, null, message) : null,
    (notices ?? []).map((text, i) => h(Message, { key: i, kind: "warning" }, text)),
    report ? h(Report, { dagId, runId, report, docs, sentences }) : null));
}

function Report({ dagId, runId, report, docs, sentences }) {
  const failed = report.state !== "success";
  return h("div", null,
    failed ? h(Failure, { dagId, runId, message: report.message }) : null,
    h(Facts, { items: [
      ["Crawl", report.crawl], ["Recipe", report.recipe], ["Published", `${count(report.published)} documents`],
      ["Sequences", report.published_sequences === undefined ? null : count(report.published_sequences)],
      ["Release tag", report.tag], ["Run number of this crawl", count(report.epoch)],
      ["Shards", report.n_shards === undefined ? null : `${count(report.n_shards)}, of ${count(report.n_files)} files`],
      ["Ended", time(report.ended_at)], ["Retracted from newer crawls", retracted(report)],
    ] }),
    h(Funnel, { report }),
    h(Validation, { report, docs }),
    h(Remarks, { sentences }),
    h(Charts, { report }),
    h(Quarantine, { report }),
    h(Differences, { dagId, runId, examples: report.examples ?? [], leftOut: report.examples_left_out ?? 0 }));
}

/** The message that the run ended with, and the way to the shard that it names. */
function Failure({ dagId, runId, message }) {
  const shard = /^(\w+)\[(\d+)\] failed/.exec(message);
  const place = shard && `dags/${encodeURIComponent(dagId)}/runs/${encodeURIComponent(runId)}/tasks/${shard[1]}/mapped/${shard[2]}/plugin/shard-quality`;
  return h(Message, { kind: "error", title: "This run failed." },
    h("span", { className: "cq-pre" }, message),
    place ? h("div", null, h("a", { href: new URL(place, document.baseURI).href }, `What shard ${shard[2]} of ${shard[1]} met`)) : null);
}

function retracted(report) {
  return Object.entries(report.retracted ?? {}).filter(([, n]) => n).map(([crawl, n]) => `${count(n)} (${crawl})`).join(", ");
}

globalThis["Corpus quality"] = CorpusQuality;
globalThis.AirflowPlugin = CorpusQuality;
