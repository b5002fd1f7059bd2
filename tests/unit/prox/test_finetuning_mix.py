from collections import Counter
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.prox.finetuning_mix import Mix, MixPlan, plan_mix

BOUNDS = (0.35, 0.6)


@pytest.mark.parametrize(
    ("n_keep", "n_edit", "expected"),
    [
        (45, 55, MixPlan(45, 55)),
        (10, 65, MixPlan(35, 65)),  # the few that keep are repeated
        (1, 100, MixPlan(4, 7)),  # four times at most, then the others are thinned out
        (90, 40, MixPlan(90, 60)),
        (100, 1, MixPlan(6, 4)),
        (0, 50, MixPlan(0, 50)),
        (50, 0, MixPlan(50, 0)),
    ],
)
def test_the_share_that_keeps_is_moved_to_the_nearer_bound(n_keep, n_edit, expected):
    assert plan_mix(n_keep, n_edit, BOUNDS, 4) == expected
    assert plan_mix(n_keep, n_edit, None, 4) == MixPlan(n_keep, n_edit)


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 6))
def test_the_share_is_within_its_bounds_as_near_as_whole_numbers_allow(n_keep, n_edit, repeats):
    plan = plan_mix(n_keep, n_edit, BOUNDS, repeats)
    slack = 1 / (plan.n_keep + plan.n_edit)
    assert BOUNDS[0] - slack <= plan.keep_share <= BOUNDS[1] + slack
    assert plan.n_keep <= n_keep * repeats
    assert plan.n_edit <= n_edit * repeats


def marks(n_keep, n_edit):
    return [True] * n_keep + [False] * n_edit


def test_an_epoch_holds_the_planned_numbers_in_a_shuffled_order_of_its_own():
    mix = Mix(marks(10, 65), plan_mix(10, 65, BOUNDS, 4), seed=1)
    first, second = mix.epoch(0).tolist(), mix.epoch(1).tolist()
    for epoch in (first, second):
        counts = Counter(epoch)
        assert sorted(Counter(counts[i] for i in range(10))) == [3, 4]  # 35 places for 10 examples
        assert all(counts[i] == 1 for i in range(10, 75))
    assert first != second
    assert first == Mix(marks(10, 65), mix.plan, seed=1).epoch(0).tolist()
    assert first != Mix(marks(10, 65), mix.plan, seed=2).epoch(0).tolist()


def test_examples_that_are_thinned_out_take_turns():
    mix = Mix(marks(1, 100), MixPlan(4, 7), seed=0)
    seen = Counter(i for number in range(100) for i in mix.epoch(number).tolist() if i > 0)
    assert set(seen.values()) == {7}  # 700 places for 100 examples


@given(st.integers(0, 20), st.integers(1, 30), st.integers(1, 9))
def test_a_steps_examples_do_not_depend_on_the_steps_before_it(n_keep, n_edit, n):
    def mix():
        return Mix(marks(n_keep, n_edit), plan_mix(n_keep, n_edit, BOUNDS, 4), seed=3)

    walked = mix()
    steps = [walked.rows(step, n) for step in range(8)]
    assert [mix().rows(step, n) for step in reversed(range(8))] == steps[::-1]
    order = (i for number in range(10**6) for i in mix().epoch(number).tolist())
    assert [i for step in steps for i in step] == list(islice(order, 8 * n))
