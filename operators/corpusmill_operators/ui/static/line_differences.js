// Which lines of a text are gone and which are new: the longest common subsequence of lines.

const MAX_CELLS = 4_000_000;

/** Returns {before: [{text, changed}], after: [{text, changed}]} of two texts, line by line. */
export function lineDifferences(before, after) {
  const a = before.split("\n"), b = after === "" ? [] : after.split("\n");
  const kept = a.length * b.length > MAX_CELLS ? byPresence(a, b) : byCommonLines(a, b);
  return {
    before: a.map((text, i) => ({ text, changed: !kept.a.has(i) })),
    after: b.map((text, i) => ({ text, changed: !kept.b.has(i) })),
  };
}

function byCommonLines(a, b) {
  const width = b.length + 1;
  const best = new Uint32Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      best[i * width + j] = a[i] === b[j] ? best[(i + 1) * width + j + 1] + 1
        : Math.max(best[(i + 1) * width + j], best[i * width + j + 1]);
    }
  }
  const kept = { a: new Set(), b: new Set() };
  for (let i = 0, j = 0; i < a.length && j < b.length;) {
    if (a[i] === b[j]) { kept.a.add(i++); kept.b.add(j++); }
    else if (best[(i + 1) * width + j] >= best[i * width + j + 1]) i++;
    else j++;
  }
  return kept;
}

/** For texts of very many lines: a line is kept where the other text has it anywhere. */
function byPresence(a, b) {
  const inA = new Set(a), inB = new Set(b);
  const indices = (lines, others) => new Set(lines.flatMap((line, i) => (others.has(line) ? [i] : [])));
  return { a: indices(a, inB), b: indices(b, inA) };
}
