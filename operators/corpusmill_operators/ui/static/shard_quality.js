// The tab of a mapped task: what its shard did, its inputs, its worst rows, how fast it was.

import { Facts, h, Message, Page, Section, Table } from "./elements.js";
import { byCount, count, duration, NONE, time } from "./figures.js";
import { useLoaded } from "./loading.js";

function ShardQuality({ dagId, runId, taskId, mapIndex }) {
  const index = mapIndex === undefined || mapIndex === null || mapIndex === "" ? "-1" : String(mapIndex);
  const loaded = useLoaded(dagId && runId && taskId ? ["runs", dagId, runId, "tasks", taskId, index] : null);
  return h(Page, { title: "Shard quality", loaded }, ({ shard, inputs, message }) => h("div", null,
    message ? h(Message, null, message) : null,
    shard ? h(Shard, { shard }) : null,
    inputs ? h(Inputs, { shard: inputs }) : null));
}

function Shard({ shard }) {
  const failed = shard.state === "failed";
  return h("div", null,
    failed ? h(Message, { kind: "error", title: `Shard ${shard.shard} failed: ${shard.error}.` }, h("span", { className: "cq-pre" }, shard.message),
      h("div", null, RETRY[shard.retry] ?? "")) : null,
    shard.skipped ? h(Message, null, "The result was there already, from an earlier attempt or run with the same content; nothing was done again.") : null,
    h(Facts, { items: [
      ["Stage", shard.stage], ["Crawl", shard.crawl], ["Shard", shard.shard], ["Ended", time(shard.ended_at)],
      ["Time", duration(shard.seconds)], ["Throughput", throughput(shard)],
    ] }),
    failed ? null : h(Counts, { shard }),
    h(Rows, { title: "Inputs that could not be processed", rows: shard.quarantine, empty: "None." }),
    shard.worst_are ? h(Rows, { title: `Worst examples: ${shard.worst_are}`, rows: shard.worst, empty: "None." }) : null,
    h(Inputs, { shard }));
}

const RETRY = {
  permanent: "The task is not tried again: the same would happen. Change what the message names, then clear the task.",
  transient: "This can pass by itself: the task is tried again after a pause, as often as the DAG's retries allow.",
};

function throughput(shard) {
  if (!shard.documents_in || !shard.seconds) return null;
  const per = (n) => count(Number((n / shard.seconds).toPrecision(3)));
  const characters = shard.characters_in || shard.characters_kept;
  return `${per(shard.documents_in)} documents/s${characters ? `, ${per(characters)} characters/s` : ""}`;
}

function Counts({ shard }) {
  const reasons = byCount({ ...shard.removed, ...shard.quarantined });
  return h(Section, { title: "Counts" },
    h(Table, { caption: "What the shard read and kept", hideCaption: true,
      columns: [{ title: "" }, { title: "Read", number: true }, { title: "Kept", number: true }],
      rows: [["Documents", count(shard.documents_in), count(shard.documents_kept)],
        ["Characters", shard.characters_in ? count(shard.characters_in) : NONE, shard.characters_kept ? count(shard.characters_kept) : NONE]] }),
    reasons.length ? h(Table, { caption: "Lost here, and why", columns: [{ title: "Reason" }, { title: "Documents or inputs", number: true }],
      rows: reasons.map(([name, n]) => [name, count(n)]) }) : h("p", null, "Nothing was removed."),
    h("details", null, h("summary", null, "All counters of the stage"),
      h(Table, { caption: "Counters", hideCaption: true, columns: [{ title: "Counter" }, { title: "Value", number: true }],
        rows: Object.entries(shard.metrics ?? {}).map(([name, n]) => [name, count(Number(n.toFixed(3)))]) })));
}

const FIRST = ["doc_id", "where", "url", "reason", "drop_reason", "skipped_reason", "decision", "message"];
const LONG = ["where", "url", "message"];
const rank = (name) => (FIRST.includes(name) ? FIRST.indexOf(name) : FIRST.length);

function Rows({ title, rows, empty }) {
  const names = [...new Set((rows ?? []).flatMap((row) => Object.keys(row).filter((name) => row[name] !== "")))]
    .sort((a, b) => rank(a) - rank(b));
  return h(Section, { title },
    rows?.length ? h(Table, { caption: title, hideCaption: true, columns: names.map((name) => ({ title: name.replaceAll("_", " "), className: LONG.includes(name) ? "cq-value" : "cq-short" })),
      rows: rows.map((row) => names.map((name) => row[name] ?? NONE)) }) : h("p", null, empty));
}

function Inputs({ shard }) {
  const more = shard.n_files - shard.files.length;
  return h(Section, { title: `Input files (${count(shard.n_files)})` },
    h("ul", { className: "cq-files" }, shard.files.map((file) => h("li", { key: file }, file)), more > 0 ? h("li", null, `and ${count(more)} more`) : null));
}

globalThis["Shard quality"] = ShardQuality;
globalThis.AirflowPlugin = ShardQuality;
