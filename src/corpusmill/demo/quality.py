"""How well a refiner cleans the demo pages: the lines of its output against the lines as they were put in the pages.

Lines are compared after whitespace is squeezed and a list bullet removed. Headlines belong to neither side and do not
count, and neither do lines that the extraction dropped before the refiner saw them.
"""

import gzip
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class GoldPage:
    """What a written page holds.

    Attributes:
        url: Address of the page.
        kind: What the page is: ``news``, ``recipe``, ``spam`` and so on.
        wanted: Lines of the text, in order.
        noise: Lines of site furniture, in order.
        keep_doc: Whether the page is worth keeping.
    """

    url: str
    kind: str
    wanted: tuple[str, ...]
    noise: tuple[str, ...]
    keep_doc: bool

    def labels(self, text: str) -> list[bool | None]:
        """Returns, for each line of a text: True to keep, False to remove, None where the gold does not say."""
        wanted, noise = {normal_line(w) for w in self.wanted}, {normal_line(n) for n in self.noise}
        found = []
        for line in map(normal_line, text.split("\n")):
            found.append(True if line in wanted else False if line in noise else None)
        return found


def read_gold(gold_file: Path) -> Iterator[GoldPage]:
    """Yields the pages of a gold file."""
    with gzip.open(gold_file, "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            yield GoldPage(row["url"], row["kind"], tuple(row["wanted"]), tuple(row["noise"]), row["keep_doc"])


def normal_line(line: str) -> str:
    """Returns a line as it is compared: whitespace squeezed, without a list bullet."""
    return " ".join(line.split()).removeprefix("\u2022 ")


def line_quality(gold_file: Path, refined: Mapping[str, tuple[str, str | None]]) -> dict[str, float | int | None]:
    """Returns how well kept and removed lines agree with the gold, over all pages that the gold says to keep.

    Args:
        gold_file: A file of ``demo/gold``.
        refined: Text before and after the refiner by URL; None or ``""`` after means that all of it was removed.

    Returns:
        ``documents`` and ``lines`` that were compared, ``unjudged_lines`` of the same documents; ``keep_*`` and
        ``remove_*`` ``precision``, ``recall`` and ``f1`` over lines, ``char_f1`` of the kept lines weighted by
        characters; ``baseline_char_f1`` and ``baseline_keep_f1`` are those of the untouched text. None where nothing
        was there to divide by.
    """
    counts: Counter[str] = Counter()
    for page in read_gold(gold_file):
        if page.keep_doc and page.url in refined:
            before, after = refined[page.url]
            _count(page, before, after or "", counts)
    keep = _scores(counts["kept_wanted"], counts["kept_noise"], counts["lost_wanted"])
    remove = _scores(counts["lost_noise"], counts["lost_wanted"], counts["kept_noise"])
    chars = _scores(counts["kept_wanted_chars"], counts["kept_noise_chars"], counts["lost_wanted_chars"])
    wanted, noise = counts["kept_wanted"] + counts["lost_wanted"], counts["kept_noise"] + counts["lost_noise"]
    wanted_chars = counts["kept_wanted_chars"] + counts["lost_wanted_chars"]
    noise_chars = counts["kept_noise_chars"] + counts["lost_noise_chars"]
    return {
        "documents": counts["documents"],
        "lines": wanted + noise,
        "unjudged_lines": counts["unjudged"],
        **{f"keep_{name}": value for name, value in keep.items()},
        **{f"remove_{name}": value for name, value in remove.items()},
        "char_f1": chars["f1"],
        "baseline_keep_f1": _scores(wanted, noise, 0)["f1"],
        "baseline_char_f1": _scores(wanted_chars, noise_chars, 0)["f1"],
    }


def _count(page: GoldPage, before: str, after: str, counts: Counter[str]) -> None:
    rest = Counter(normal_line(line) for line in after.split("\n"))
    counts["documents"] += 1
    for line, wanted in zip(map(normal_line, before.split("\n")), page.labels(before), strict=True):
        if wanted is None:
            counts["unjudged"] += bool(line)
            continue
        kept = rest[line] > 0
        rest[line] -= kept
        name = f"{'kept' if kept else 'lost'}_{'wanted' if wanted else 'noise'}"
        counts[name] += 1
        counts[f"{name}_chars"] += len(line)


def _scores(hits: int, false_alarms: int, misses: int) -> dict[str, float | None]:
    return {
        "precision": hits / (hits + false_alarms) if hits + false_alarms else None,
        "recall": hits / (hits + misses) if hits + misses else None,
        "f1": 2 * hits / (2 * hits + false_alarms + misses) if hits + false_alarms + misses else None,
    }
