import random

from corpusmill.modeling.token_batches import pad_right, plan_batches, shared_beginning


def test_every_sequence_is_in_one_batch_and_no_batch_exceeds_the_budget():
    lengths = [random.Random(1).randint(1, 400) for _ in range(500)]
    plan = plan_batches(lengths, 2000)
    assert sorted(i for batch in plan for i in batch) == list(range(500))
    for batch in plan:
        assert len(batch) * max(lengths[i] for i in batch) <= 2000
    padded = sum(len(batch) * max(lengths[i] for i in batch) for batch in plan)
    assert padded <= 1.2 * sum(lengths), "sequences of like length go together"


def test_a_sequence_longer_than_the_budget_gets_a_batch_of_its_own_and_the_longest_come_first():
    assert plan_batches([3, 100, 5, 4], 10) == [[1], [2, 3], [0]]


def test_the_plan_depends_on_the_lengths_alone():
    assert plan_batches([2, 2, 2], 4) == plan_batches((2, 2, 2), 4) == [[0, 1], [2]]
    assert plan_batches([], 4) == []


def test_padding_is_on_the_right_and_masked():
    ids, mask = pad_right([[1, 2, 3], [4]], pad_id=9)
    assert ids.tolist() == [[1, 2, 3], [4, 9, 9]]
    assert mask.tolist() == [[True, True, True], [True, False, False]]
    assert pad_right([[1, 2, 3]], multiple=8)[0].shape == (1, 8)


def test_sequences_share_what_they_begin_with_but_for_one_id_of_the_shortest():
    assert shared_beginning([[5, 1, 2, 9], (5, 1, 3), [5, 1, 2]]) == 2
    assert shared_beginning([[5, 1, 2, 9], [5, 1, 2]]) == 2
    assert shared_beginning([[5, 1], [6, 1]]) == 0
    assert shared_beginning([[5], [5, 1]]) == 0
    assert shared_beginning([[5, 6, 7]]) == 2
