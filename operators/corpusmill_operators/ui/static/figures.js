// Numbers, times and names as people read them.

const WHOLE = new Intl.NumberFormat("en-US");

export const NONE = "\u2013";

export const count = (n) => (n === null || n === undefined ? NONE : WHOLE.format(n));

export function share(part, whole) {
  return whole ? `${(100 * part / whole).toFixed(1)} %` : NONE;
}

/** A score or share with four significant digits. */
export const score = (x) => (x === null || x === undefined ? NONE : String(Number(x.toPrecision(4))));

/** Seconds as "12.3 s", "4 min 05 s" or "3 h 02 min". */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return NONE;
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  const pad = (n) => String(n).padStart(2, "0");
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${pad(whole % 60)} s`;
  return `${Math.floor(whole / 3600)} h ${pad(Math.floor(whole / 60) % 60)} min`;
}

/** A time as "2026-11-21 19:28 UTC". */
export function time(text) {
  const at = text ? new Date(text) : null;
  return at && !Number.isNaN(at.getTime()) ? `${at.toISOString().slice(0, 16).replace("T", " ")} UTC` : null;
}

export const STAGES = {
  ingest: "Pages with text",
  clean: "After the rules",
  deduplicate: "After deduplication",
  refine_documents: "After document programs",
  refine_chunks: "After chunk programs",
  pack: "In packed sequences",
  score: "Scored",
  select: "Selected",
  assemble_sequences: "Published sequences",
  assemble: "Published",
};

export const stageName = (stage) => STAGES[stage] ?? stage;

/** {reason: n} as pairs, largest first. */
export function byCount(reasons) {
  return Object.entries(reasons ?? {}).sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1));
}

export const total = (reasons) => Object.values(reasons ?? {}).reduce((sum, n) => sum + n, 0);
