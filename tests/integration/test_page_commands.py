"""How-to pages that show a dialogue: their commands are run, and print what the page says.

A ``yaml`` block whose first line is ``# NAME.yaml`` writes that file. In a ``console`` block ``$`` begins a command,
``>`` goes on with it, and the rest is its output, in which ``...`` stands for anything. The commands run in a folder
with the project's ``dags``.
"""

import doctest
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.slow]
REPOSITORY = Path(__file__).resolve().parents[2]
HOW_TO = REPOSITORY / "docs" / "how-to"
PAGES = ["first-corpus.md", "redeciding.md", "selection.md"]
BLOCK = re.compile(r"^```(yaml|console)\n(.*?)^```", re.M | re.S)
SECONDS = 300


def dialogue(text):
    """Returns the commands of a console block, each with its output."""
    found = []
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        elif line.startswith("> ") and not found[-1][1]:
            found[-1] = (f"{found[-1][0]}\n{line[2:]}", [])
        else:
            found[-1][1].append(line)
    return [(command, "\n".join(lines)) for command, lines in found]


def as_pattern(expected):
    """Returns the output of a page for doctest's comparison, which matches ``...`` inside lines and over lines."""
    return "\n".join(line.rstrip() for line in expected.splitlines()) + "\n"


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_print_what_it_says(page, home, tmp_path):
    there = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": there, "CORPUSMILL_HOME": str(home)}
    (tmp_path / "dags").symlink_to(REPOSITORY / "dags")
    compare, flags = doctest.OutputChecker(), doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    commands = 0
    for kind, text in BLOCK.findall((HOW_TO / page).read_text()):
        if kind == "yaml":
            name = re.match(r"# ([\w-]+\.yaml)\n", text)
            if name:
                (tmp_path / name[1]).write_text(text)
            continue
        for command, expected in dialogue(text):
            done = subprocess.run(
                ["bash", "-c", command], env=environment, cwd=tmp_path, text=True, timeout=SECONDS, check=False,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
            assert done.returncode == 0, f"$ {command}\n{done.stdout}"
            got = as_pattern(done.stdout)
            assert compare.check_output(as_pattern(expected), got, flags), f"$ {command}\n{expected}\n\ngot:\n{got}"
            commands += 1
    assert commands
