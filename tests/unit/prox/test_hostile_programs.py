"""Programs that an attacker could make a model write: what they may touch, and how their cost grows.

Cost is counted in executed lines of Python and in bytes at the peak, never in seconds: both are equal on all machines.
"""

import sys
import tracemalloc

import pytest

from corpusmill.prox.program_execution import (
    MAX_GROWTH,
    MAX_WHOLE_NORMALIZES,
    ChunkProgram,
    ExecutionSettings,
    decide_document,
    execute,
)
from corpusmill.prox.program_parser import parse_program

MODES = ("strict", "compat")
TEXT = "\n".join(f"line {n} has several plain words in it" for n in range(12))
OPEN = {"min_words": 0, "max_removed": 1.0}

DANGEROUS = [
    '__import__("os").system("touch canary")',
    'import os; os.remove("canary")',
    'exec("raise SystemExit")',
    'remove_lines(start=__import__("os").getpid(), end=2)',
    "remove_lines(start=len(open('canary').read()), end=eval('2'))",
    'normalize(source_str=open("/etc/passwd").read(), target_str="")',
    'normalize(source_str="absent", target_str=__import__("os").environ["HOME"])',
    'normalize(source_str="{canary!r:>1000000000}", target_str="")'.replace("canary", "x"),
    'normalize(source_str="line" * 10**9, target_str="")',
    'f"{exit()}"',
    "(lambda: exit())()",
    "keep_chunk.__globals__['__builtins__']",
    "remove_lines(**{'start': 0, 'end': 2})",
    "remove_lines(*range(10**12))",
    "remove_lines(start=9**9**9, end=9**9**9)",
    "delete_document()\nrm_rf('/')\nos.system('true')\nprint(1)",
    "@staticmethod\ndef remove_lines(): pass",
]
_WATCHED = ("compile", "exec", "import", "open", "os.", "subprocess.", "socket.", "ctypes.", "shutil.", "marshal.")
_events: list[str] | None = None


def _hook(event, _args):
    if _events is not None and event.startswith(_WATCHED):
        _events.append(event)


@pytest.fixture(scope="module")
def audited():
    """Returns the interpreter's own record of what was compiled, executed, imported or opened during a call."""
    sys.addaudithook(_hook)  # it cannot be taken away again, so it is silent outside of calls

    def watch(call):
        global _events
        _events = []
        try:
            call()
            return _events
        finally:
            _events = None

    return watch


def programs(output):
    return [ChunkProgram(0, 11, output)]


def test_the_watch_sees_what_it_should(audited, tmp_path):
    assert "exec" in audited(lambda: eval("1 + 1"))  # this is what must not happen
    assert audited(lambda: (tmp_path / "x").touch())


@pytest.mark.parametrize("mode", MODES)
def test_programs_that_python_would_run_run_nothing(audited, mode, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "canary").write_text("alive")
    settings = ExecutionSettings(mode)

    def run():
        for output in [*DANGEROUS, "\n".join(DANGEROUS)]:
            assert execute(TEXT, programs(output), settings).text in (TEXT, ""), output
            decide_document(output, mode)

    assert audited(run) == []
    assert [path.name for path in tmp_path.iterdir()] == ["canary"]
    assert (tmp_path / "canary").read_text() == "alive"


def test_calls_of_other_functions_are_no_edits_and_no_errors_in_strict_mode():
    names = [
        "delete_lines",
        "remove_line",
        "Remove_lines",
        "normalise",
        "normalize_space",
        "print",
        "os.system",
        "eval",
    ]
    for name in names:
        parsed = parse_program(f"{name}(start=0, end=5)", "strict")
        assert (parsed.ops, parsed.diagnostics.n_errors) == ((), 0), name
        assert parsed.diagnostics.n_ignored, name
    output = "\n".join(f'{name}("line")' for name in names) + "\nremove_lines(start=0, end=0)"
    assert execute(TEXT, programs(output), ExecutionSettings("strict")).text == TEXT[TEXT.index("\n") + 1 :]


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (r'normalize(source_str="say \"hi\"", target_str="")', 'say "hi"'),
        ("""normalize(source_str='say "hi"', target_str='')""", 'say "hi"'),
        ("""normalize(source_str="say "hi"", target_str="")""", 'say "hi"'),
        ("""normalize(source_str="it's "so" odd")""", """it's "so" odd"""),
        ("""normalize(source_str='a\\'b"c', target_str="")""", """a'b"c"""),
    ],
)
def test_nested_quotes_name_the_text_they_enclose(call, expected):
    text = f"before {expected} behind\n{TEXT}"
    result = execute(text, [ChunkProgram(0, 12, call)], ExecutionSettings("strict"))
    assert result.text == text.replace(expected, "")
    assert result.n_errors == 0


def counted_lines(call):
    """Returns how many lines of Python a call executes."""
    n_lines = 0

    def trace(_frame, event, _arg):
        nonlocal n_lines
        n_lines += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return n_lines


def peak_bytes(call):
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("number", [999_999, 20_000_000, 10**12, 10**4000], ids=["6", "8", "13", "4001 digits"])
def test_a_number_in_a_program_changes_neither_work_nor_memory(mode, number):
    def run(last):
        calls = [
            f"remove_lines(start=0, end={last})",
            f"remove_lines(start={last}, end={last}0)",
            f"remove_lines({last})",
        ]
        return lambda: execute(TEXT, programs("\n".join(calls * 5)), ExecutionSettings(mode, max_errors=100, **OPEN))

    run(11)()  # what Python makes on first use is not counted
    assert counted_lines(run(number)) <= 2 * counted_lines(run(11))
    assert peak_bytes(run(number)) <= peak_bytes(run(11)) + 20 * 5 * 3 * 4001


PIECES = [
    "remove_lines(start=0, end=99)",
    "remove_lines(0,",
    'normalize(source_str="a',
    'normalize("a" b "c")',
    "normalize(",
    "(((",
    "'\"",
    '\\"',
    "keep_chunk(",
    "a=",
    "#",
]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("separator", ["", " ", "\n", ","], ids=repr)
@pytest.mark.parametrize("piece", PIECES, ids=repr)
def test_work_is_linear_in_the_output(mode, separator, piece):
    def run(n):
        output = separator.join([piece] * n)
        return lambda: execute(TEXT, programs(output), ExecutionSettings(mode, max_errors=10**9, **OPEN))

    assert counted_lines(run(400)) <= 4.4 * counted_lines(run(100)) + 200


@pytest.mark.parametrize("mode", MODES)
def test_work_is_linear_in_the_text(mode):
    def run(n):
        text = "\n".join(f"line {k} has several words" for k in range(n))
        window = 20
        chunks = [
            ChunkProgram(k, k + window - 1, f'remove_lines(start={k}, end={n})\nnormalize("several ", "")')
            for k in range(0, n, window)
        ]
        return lambda: execute(text, chunks, ExecutionSettings(mode, max_errors=10**9, **OPEN))

    assert counted_lines(run(1600)) <= 4.4 * counted_lines(run(400))


@pytest.mark.parametrize("mode", MODES)
def test_megabytes_of_output_end(mode):
    output = 'remove_lines(start=3, end=4)\nnormalize(source_str="plain", target_str="")\n' * 10_000 + "x" * 4_000_000
    assert len(output) > 4_700_000
    settings = ExecutionSettings(mode, max_errors=10**9)
    result = execute(TEXT, programs(output), settings)
    assert result.text.count("\n") == 9
    assert "plain" not in result.text


@pytest.mark.parametrize("mode", MODES)
def test_replacements_that_double_the_text_again_and_again_are_refused(mode):
    text = "\n".join("ab" * 500 + " word" * 12 for _ in range(3))
    double = 'normalize(source_str="ab", target_str="abab")'
    settings = ExecutionSettings(mode)
    once = execute(text, [ChunkProgram(0, 2, double)], settings)
    assert len(once.text) == len(text) + 3000
    bomb = [ChunkProgram(0, 2, "\n".join([double] * 200))]
    assert peak_bytes(lambda: execute(text, bomb, settings)) < 20 * (2 * len(text) + MAX_GROWTH)
    result = execute(text, bomb, settings)
    assert (result.text, result.reason) == (text, "rejected_errors")


def test_chunks_of_a_document_together_read_it_so_often_and_not_more_in_compat_mode():
    call = 'normalize(source_str="absent", target_str="")'
    chunks = [ChunkProgram(0, 11, "\n".join([call] * 500))] * (MAX_WHOLE_NORMALIZES // 500)
    assert execute(TEXT, chunks, ExecutionSettings("compat")).n_errors == 0
    more = [*chunks, ChunkProgram(0, 11, f"{call}\n{call}")]
    result = execute(TEXT, more, ExecutionSettings("compat"))
    assert (result.text, result.n_errors, result.reason) == (TEXT, 2, "rejected_errors")
    assert execute(TEXT, more, ExecutionSettings("strict")).n_errors == 0
