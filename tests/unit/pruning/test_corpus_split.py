import random
from fractions import Fraction

from corpusmill.pruning.corpus_split import CorpusSplit, is_within, place_of

IDS = [f"doc-{i}" for i in range(4000)]


def test_a_part_is_a_function_of_the_id_and_stays_what_it_was_for_later_crawls():
    split = CorpusSplit(Fraction(1, 10), seed=3)
    parts = {i: split.part_of(i) for i in IDS}
    later = [*IDS, *(f"new-{i}" for i in range(4000))]
    random.Random(0).shuffle(later)
    assert all(split.part_of(i) == parts[i] for i in later if i in parts)
    assert set(parts.values()) == {"reserved", "pool"}
    assert 330 < list(parts.values()).count("reserved") < 470
    assert place_of("doc-1", 3, "split") == 7137810764373460023


def test_a_larger_share_holds_the_smaller_and_other_seeds_are_independent():
    tenth, third = (
        {i for i in IDS if CorpusSplit(Fraction(share)).part_of(i) == "reserved"} for share in ("1/10", "1/3")
    )
    assert tenth < third
    other = {i for i in IDS if CorpusSplit(Fraction("1/10"), seed=1).part_of(i) == "reserved"}
    assert 15 < len(tenth & other) < 70
    held_out = {i for i in IDS if is_within(i, Fraction(1, 10), 0, "validation")}
    assert 15 < len(tenth & held_out) < 70


def test_the_borders_of_a_share_are_exact():
    assert all(is_within(i, Fraction(1), 0, "x") for i in IDS)
    assert not any(is_within(i, Fraction(0), 0, "x") for i in IDS)
    split = CorpusSplit(Fraction(3, 10), 7)
    assert CorpusSplit.from_json(split.to_json()) == split
    assert split.in_part(IDS[:5], "pool") == [split.part_of(i) == "pool" for i in IDS[:5]]
