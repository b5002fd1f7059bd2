"""A program that says the same call for the fourth time is stopped, and cut in front of the repetition."""

import pytest

from corpusmill.prox.loop_detection import MAX_REPEATS, LoopWatch

PIECES = tuple(bytes([i]) for i in range(256))
A, B, C = "remove_lines(start=1, end=1)", "remove_lines(start=3, end=4)", 'normalize(source_str=")", target_str="")'


def watch(text):
    """Returns what is kept of a text, None where it does not loop."""
    seen = LoopWatch(PIECES)
    for place, byte in enumerate(text.encode()):
        if seen.advance(byte):
            assert seen.n_ids == place + 1
            return text.encode()[: seen.n_good].decode()
    assert not seen.looped
    return None


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("\n".join([A] * 4), A),
        ("\n".join([A] * 3), None),
        ("\n".join([A, B, C] * 4), "\n".join([A, B, C])),
        ("\n".join([B, *[A] * 9]), f"{B}\n{A}"),
        ("\n".join([A, B, A, C, A, A]), f"{A}\n{B}"),
        (" ; ".join([A] * 5), A),
        (f"  {A}\n{A} \n\n{A};\n{A}", f"  {A}"),
        ("\n".join(f"remove_lines(start={i}, end={i})" for i in range(50)), None),
        ("x" * 500, None),
        ("\n" * 50, None),
        ("say\n" * 5, "say\n"),
    ],
)
def test_calls_that_repeat_are_cut(text, kept):
    assert watch(text) == kept


def test_a_closing_bracket_inside_a_string_ends_no_call():
    calls = [f'normalize(source_str="{i} \\") remove_lines(start=1, end=1)", target_str="")' for i in range(6)]
    assert watch("\n".join(calls)) is None


def test_control_tokens_and_unknown_ids_are_no_text():
    seen = LoopWatch((None, b"a()"))
    assert not any(seen.advance(token) for token in [1] * MAX_REPEATS + [0, 0, 99])
    assert seen.advance(1)
    assert seen.n_good == 1
