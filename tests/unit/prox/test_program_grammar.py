"""The strict grammar over one chunk: what it lets through parses without error and names nothing outside the chunk."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmill.prox.chunking import Chunk
from corpusmill.prox.program import Normalize, RemoveLines
from corpusmill.prox.program_grammar import MAX_TARGET, ChunkGrammar, Guide, Vocabulary
from corpusmill.prox.program_parser import parse_program

CHUNK = Chunk(7, ("Home | Contact", 'say "hi"', "C:\\new\\", "", " x ", "\u4f60\u597d caf\u00e9", "\ud800 lone it's"))
TOKENS = [b"remove", b"_lines", b"(start=", b", end=", b")", b")\n", b"normalize(", b'source_str="', b'", target_str="']
TOKENS += [b"keep_chunk()", b" keep", b"Home", b" |", b" Con", b"7", b"8", b"10", b"13", b"12", b"\n", b'")', b" re"]
PIECES = (None, None, *(bytes([i]) for i in range(256)), *TOKENS)
EOS = 1


def ends(program, chunk=CHUNK):
    grammar = ChunkGrammar(chunk)
    state = grammar.feed(grammar.start(), program.encode())
    return state is not None and state.whole


@pytest.mark.parametrize(
    "program",
    [
        "remove_lines(start=7, end=13)",
        " remove_lines(start=7, end=7)\nremove_lines(start=9, end=12)",
        "remove_lines(line_start=010, line_end=11)",
        'normalize(source_str="Home |", target_str="")',
        'normalize(source_str="Contact")',
        r'normalize(source_str="say \"hi", target_str="he said \"hi\", (twice)")',
        r'normalize(source_str="C:\new\\", target_str="")',
        r'normalize(source_str="it\'s", target_str="")',
        'normalize(source_str="\u4f60\u597d", target_str="")',
        "keep_chunk()",
        "untouch_doc()\nskip_chunk()",
    ],
)
def test_programs_of_the_chunk_are_whole_and_parse(program):
    assert ends(program)
    parsed = parse_program(program, "strict")
    assert parsed.diagnostics.n_errors == parsed.diagnostics.n_ignored == 0
    for op in parsed.ops:
        if isinstance(op, Normalize):
            assert any(op.source in line for line in CHUNK.lines)


@pytest.mark.parametrize(
    "program",
    [
        "",
        "remove_lines(start=6, end=8)",
        "remove_lines(start=9, end=14)",
        "remove_lines(start=9, end=8)",
        "remove_lines(start=0000007, end=8)",
        "remove_lines(start=, end=8)",
        "remove_lines(start=7, end=8",
        "remove_lines(start=7, end=8)\n",
        "remove_lines(all=True)",
        "  keep_chunk()",
        "keep_chunk() keep_chunk()",
        "drop_doc()",
        'normalize(source_str="x", target_str="")',
        'normalize(source_str="Contact\nsay", target_str="")',
        'normalize(source_str="Nowhere", target_str="")',
        'normalize(source_str="say "hi", target_str="")',
        'normalize(source_str="Home", target_str="' + "y" * (MAX_TARGET + 1) + '")',
    ],
)
def test_other_text_is_not_a_whole_program(program):
    assert not ends(program)


@pytest.mark.parametrize("cut", range(1, 4))
def test_a_source_ends_between_characters_only(cut):
    grammar = ChunkGrammar(CHUNK)
    source = "\u4f60\u597d".encode()[:-cut]
    state = grammar.feed(grammar.start(), b'normalize(source_str="' + source)
    assert state is not None
    assert grammar.feed(state, b'"') is None


def test_a_chunk_beyond_six_digits_can_only_be_kept_or_normalized():
    grammar = ChunkGrammar(Chunk(1_000_000, ("river", "snow")))
    assert grammar.feed(grammar.start(), b"remove") is None
    assert ends('normalize(source_str="river", target_str="")', Chunk(1_000_000, ("river", "snow")))
    assert ends("remove_lines(start=999999, end=999999)", Chunk(999_999, ("river", "snow")))
    assert not ends("remove_lines(start=999999, end=1000000)", Chunk(999_999, ("river", "snow")))


def test_a_chunk_of_blanks_has_no_source():
    grammar = ChunkGrammar(Chunk(0, ("", " \u3000 ", "x")))
    assert grammar.feed(grammar.start(), b"n") is None
    assert grammar.feed(grammar.start(), b"r") is not None


LINES = st.lists(st.text(alphabet=st.sampled_from("ab \\\"'\u00e9\u4f60\t|("), max_size=8), min_size=1, max_size=4)


@settings(max_examples=25, deadline=None)
@given(lines=LINES, first=st.sampled_from([0, 9, 98, 999_998, 2_000_000]), seed=st.integers(0, 2**32))
def test_every_walk_over_allowed_tokens_is_a_valid_program(lines, first, seed):
    chunk, rng = Chunk(first, tuple(lines)), random.Random(seed)
    guide = Guide(ChunkGrammar(chunk), Vocabulary(PIECES, EOS))
    data, boundary = b"", 0
    for _ in range(60):
        allowed = guide.allowed()
        assert allowed, f"no way on behind {data!r}"
        brute = [token for token in range(len(PIECES)) if guide.allows(token)]
        assert allowed == brute
        token = rng.choice(allowed)
        if token == EOS:
            break
        data += PIECES[token]
        guide.advance(token)
        boundary = len(data) if guide.state.whole else boundary
    parsed = parse_program(data[:boundary].decode("utf-8", "replace"), "strict")
    assert parsed.diagnostics.n_errors == parsed.diagnostics.n_ignored == 0
    assert not parsed.diagnostics.truncated
    for op in parsed.ops:
        if isinstance(op, RemoveLines):
            assert chunk.first_line <= op.first <= op.last <= chunk.last_line
        elif isinstance(op, Normalize):
            assert any(op.source in line for line in chunk.lines)
            assert len("".join(op.source.split())) >= 2


def test_ids_behind_the_last_whole_call_are_counted():
    guide = Guide(ChunkGrammar(CHUNK), Vocabulary(PIECES, EOS))
    for token in [PIECES.index(piece) for piece in (b"keep_chunk()", b"\n", b"remove")]:
        assert guide.allows(token)
        guide.advance(token)
    assert (guide.n_ids, guide.n_good) == (3, 1)
    assert not guide.allows(EOS)
    assert not guide.allows(0)
    assert not guide.allows(len(PIECES) + 5)


def test_a_vocabulary_without_the_needed_bytes_has_no_way_on():
    guide = Guide(ChunkGrammar(CHUNK), Vocabulary((None, None, b"zz"), EOS))
    assert guide.allowed() == []


def test_a_long_chunk_takes_time_linear_in_its_text():
    grammar = ChunkGrammar(Chunk(0, ("ab " * 20_000,) * 3))
    state = grammar.feed(grammar.start(), b'normalize(source_str="' + b"ab " * 5)
    assert state is not None
    assert len(state.places) <= len(grammar.text)
    assert len(Guide(grammar, Vocabulary(PIECES, EOS)).allowed()) > 0
