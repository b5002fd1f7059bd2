"""Runs conformance files: ``python -m corpusmill.conformance FILES...``.

A file holds one JSON object per line. A case with the key ``stage`` is a ProX case, one with the key ``kind`` a pruning
case. Every line counts as passed, failed or skipped, so the three numbers add up to the number of lines. A line that is
no case (bad JSON, unknown kind, blank) failed. A file that is absent or empty has no lines to count: it makes the run
fail all the same. Failures go to stderr; the last line of stdout is ``N passed, M failed, K skipped``.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class ConformanceResult:
    """Counts over all lines, and a message for each failure and skipped case.

    ``broken_files`` names files that are absent, unreadable or empty.
    """

    passed: int = 0
    failures: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    broken_files: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """True where every line passed or was skipped and every file had lines."""
        return not self.failures and not self.broken_files

    def summary(self) -> str:
        """Returns ``N passed, M failed, K skipped``."""
        return f"{self.passed} passed, {len(self.failures)} failed, {len(self.skipped)} skipped"


def run_files(paths: Sequence[Path]) -> ConformanceResult:
    """Returns the counts over all lines of all files; never raises on what a file holds."""
    result = ConformanceResult()
    for path in paths:
        try:
            content = path.read_bytes()
        except OSError as error:
            result.broken_files.append(
                f"{path.name}: cannot be read ({error.strerror}); expected a JSONL file of cases"
            )
            continue
        if not content:
            result.broken_files.append(f"{path.name}: is empty; expected one JSON object per line")
        for number, line in _lines(content):
            _run_line(f"{path.name}:{number}", line, result)
    return result


def _lines(content: bytes) -> Iterator[tuple[int, bytes]]:
    lines = content.split(b"\n")
    if not lines[-1]:
        lines.pop()  # a final line feed ends the last line and begins no other
    yield from enumerate(lines, start=1)


def _run_line(place: str, line: bytes, result: ConformanceResult) -> None:
    try:
        case = json.loads(line)
        if not isinstance(case, dict):
            raise ValueError(f"holds {type(case).__name__}, expected a JSON object")
        skipped = check_case(case)
    except Exception as error:  # noqa: BLE001 - whatever a case raises is that case's failure
        detail = str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
        result.failures.append(f"{place}: {detail}")
        return
    if skipped is None:
        result.passed += 1
    else:
        result.skipped.append(f"{place}: {skipped}")


def check_case(case: dict[str, object]) -> str | None:
    """Returns None where the case passed, or why it was skipped.

    Raises:
        AssertionError: The case failed, or is of no known kind.
    """
    if ("stage" in case) == ("kind" in case):
        raise AssertionError(f"keys {sorted(case)}: expected 'stage' (a ProX case) or 'kind' (a pruning case)")
    if "stage" in case:
        from corpusmill.prox.conformance import check_case as check_prox_case

        return check_prox_case(case)
    from corpusmill.pruning.conformance import check_case as check_pruning_case

    return check_pruning_case(case)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns 0 where all passed or were skipped, else 1."""
    parser = argparse.ArgumentParser(prog="python -m corpusmill.conformance", description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="JSONL file of conformance cases")
    result = run_files(parser.parse_args(arguments).files)
    for message in result.broken_files + result.failures:
        sys.stderr.write(f"FAILED {message}\n")
    for message in result.skipped:
        sys.stderr.write(f"skipped {message}\n")
    sys.stdout.write(result.summary() + "\n")
    return 0 if result.ok else 1


if __name__ == "__main__":
    sys.exit(main())
