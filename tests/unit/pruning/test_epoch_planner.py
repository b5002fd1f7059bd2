import pytest

from corpusmill import cli
from corpusmill.errors import ConfigError
from corpusmill.pruning.epoch_planner import plan_epochs, token_count


def test_epochs_are_the_budget_over_the_kept_tokens_and_four_are_still_fine():
    assert float(plan_epochs(7_600_000_000, 33_000_000_000).epochs) == pytest.approx(4.342, abs=1e-3)
    assert plan_epochs(1000, 4000).warning is None
    warned = plan_epochs(1000, 4001)
    assert "read the 1,000 kept tokens 4.0 times" in warned.warning
    assert "keep at least 1,001 tokens" in warned.warning
    assert plan_epochs(warned.tokens_needed, 4001).warning is None
    assert plan_epochs(warned.tokens_needed - 1, 4001).warning is not None
    assert plan_epochs(3, 1).to_json() == {
        "budget": 1, "kept_tokens": 3, "epochs": 0.3333, "tokens_needed": 1, "warning": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("kept", "budget", "named"), [(0, 1, "kept_tokens=0"), (-3, 1, "kept_tokens=-3"), (1, 0, "budget=0")]
)
def test_nothing_to_train_on_or_for_is_refused(kept, budget, named):
    with pytest.raises(ConfigError, match=named):
        plan_epochs(kept, budget)


def test_tokens_are_read_as_people_write_them():
    assert [token_count(t) for t in ("7600000000", "7.6e9", "7.6B", "7_600M", " 7,600 m")] == [7_600_000_000] * 5
    for wrong in ("", "B", "many", "1.5", "1e-3", "1/0"):
        with pytest.raises(ConfigError, match="is not a number of tokens"):
            token_count(wrong)


def test_the_command_plans_without_a_lakehouse(capsys):
    assert cli.main(["plan-epochs", "--budget", "33B", "--kept-tokens", "7.6B"]) == 0
    assert "4.34 epochs" in capsys.readouterr().err
    assert cli.main(["plan-epochs", "--budget", "lots", "--kept-tokens", "7.6B"]) == 2
