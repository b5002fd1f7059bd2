"""The commands in the pages on backfills and schedules are commands that exist."""

import re
import shlex
from pathlib import Path

import pytest

HOW_TO = Path(__file__).resolve().parents[2] / "docs" / "how-to"
PAGES = ("backfill.md", "schedules.md")

pytestmark = [pytest.mark.airflow, pytest.mark.filterwarnings("default")]


def commands(page):
    """The airflow and corpusmill commands of a page's blocks, with continued lines joined."""
    found = []
    for block in re.findall(r"```(?:sh|console)\n(.*?)```", (HOW_TO / page).read_text(), re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True) if line.strip() else []
            if words and words[0] in ("airflow", "corpusmill"):
                found.append(words)
    return found


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_parses(page):
    from airflow.cli.cli_parser import get_parser

    from corpusmill.cli import _parser

    parsers = {"airflow": get_parser(), "corpusmill": _parser()}
    given = commands(page)
    assert given
    for program, *arguments in given:
        parsed = parsers[program].parse_args(arguments)
        assert vars(parsed)


def test_the_pages_name_what_the_dags_are_called(load_dags):
    text = "".join((HOW_TO / page).read_text() for page in PAGES)
    assert {"crawl_watch", "maintain_lakehouse"} <= set(load_dags())
    for schedule, words in (("crawl_watch", "05:30 UTC"), ("maintain_lakehouse", "Sundays, 04:00 UTC")):
        assert words in text
        hour = words.split()[-2].split(":")[0].lstrip("0")
        timetable = load_dags()[schedule].timetable
        assert (getattr(timetable, "expression", None) or timetable.summary).split()[1] == hour
