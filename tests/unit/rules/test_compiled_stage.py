"""The compiled engine in the stage: the same rows, the same fingerprint, loaded only where it is asked for."""

import os
import subprocess
import sys

import pyarrow as pa
import pytest

pytest.importorskip("numba")

from corpusmill.errors import ConfigError
from corpusmill.rules import stage as stage_module
from corpusmill.rules.config import RulesConfig
from corpusmill.rules.presets import PRESETS, Preset
from corpusmill.rules.stage import CleanStage

ENGLISH = (
    "The house of the man with that hat has to be with us. We have to go there, and that is what it is!\n"
    "It was the best of times, it was the worst of times. Write to me@example.org [1] about it, please. See {it}.\n"
)
TEXTS = [
    ENGLISH * 3,
    ENGLISH.replace("{it}", "it")
    + "Another line tells of the sea. And one more of the sky, with stars. Is it so? It is.\n",
    ENGLISH + "IS_ALPHA is a name that spaCy refuses.",
    "Das ist ein deutscher Satz mit vielen Worten. Und noch einer, der so lang ist.\n" * 3,
    "",
    "lorem ipsum dolor sit amet. use cookies here please.",
]


def _table():
    n = len(TEXTS)
    return pa.table(
        {
            "crawl": ["c"] * n,
            "doc_id": [f"d{k}" for k in range(n)],
            "url": ["http://example.org/"] * n,
            "warc_file": ["w"] * n,
            "text": TEXTS,
        }
    )


@pytest.mark.parametrize("preset", sorted(PRESETS))
@pytest.mark.parametrize("english_rules", ["english", "all"])
def test_both_engines_give_the_same_rows(preset, english_rules, tmp_path):
    (tmp_path / "words").write_text("hat\n")
    shared = {"preset": preset, "english_rules": english_rules, "bad_words": {"en": str(tmp_path / "words")}}
    slow, fast = (
        CleanStage(RulesConfig.load({**shared, "engine": engine})).process(_table())
        for engine in ("python", "compiled")
    )
    assert fast.kept.equals(slow.kept)
    assert fast.removed.equals(slow.removed)
    assert fast.metrics == slow.metrics


def test_an_empty_batch_gives_empty_tables():
    stage = CleanStage(RulesConfig(engine="compiled"))
    assert stage.process(_table().slice(0, 0)).kept.num_rows == 0


def test_the_engine_is_no_part_of_the_fingerprint():
    assert RulesConfig(engine="compiled").fingerprint() == RulesConfig().fingerprint()
    assert RulesConfig(pii=False).fingerprint() != RulesConfig().fingerprint()


def test_a_preset_in_another_order_is_measured_by_definition():
    fineweb = PRESETS["fineweb"]
    turned = Preset("turned", "", tuple(reversed(fineweb.rules)), fineweb.c4_lines)
    assert stage_module._compiled_rules(turned) is None
    assert stage_module._compiled_rules(PRESETS["none"]) is None
    assert stage_module._compiled_rules(fineweb) is not None


@pytest.mark.parametrize("engine", ["python", "auto"])
def test_what_is_not_compiled_yet_is_not_compiled_for_a_small_shard(engine, tmp_path):
    code = (
        "import sys, corpusmill.rules.stage as s; "
        f"s.CleanStage(s.RulesConfig(engine={engine!r})).measure('A text.'); print('numba' in sys.modules)"
    )
    home = {**os.environ, "CORPUSMILL_HOME": str(tmp_path)}
    home.pop("NUMBA_CACHE_DIR", None)
    done = subprocess.run([sys.executable, "-c", code], env=home, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_a_long_shard_goes_over_to_the_kernels_and_gives_the_same_rows(monkeypatch):
    monkeypatch.setattr(stage_module, "rules_are_compiled", lambda: False)
    monkeypatch.setattr(stage_module, "WORTH_COMPILING", len(TEXTS[0] + TEXTS[1]))
    table, switching = _table(), CleanStage(RulesConfig())
    parts = [table.slice(start, 2) for start in range(0, table.num_rows, 2)]
    used, rows = [], []
    for part in parts:
        rows.append(switching.process(part))
        used.append(switching._compiled is not None)
    assert used[0] is False
    assert used[-1] is True
    slow = [CleanStage(RulesConfig(engine="python")).process(part) for part in parts]
    assert [r.kept for r in rows] == [r.kept for r in slow]
    assert [r.removed for r in rows] == [r.removed for r in slow]


@pytest.fixture
def no_place_for_kernels(monkeypatch):
    """The kernels are not loaded yet, and numba finds no folder that it could keep them in."""
    from numba.core.caching import CacheImpl

    monkeypatch.setattr(CacheImpl, "_locator_classes", [])
    for name in [name for name in sys.modules if name.startswith("corpusmill.rules.compiled.")]:
        monkeypatch.delitem(sys.modules, name)


def test_auto_goes_on_by_definition_where_kernels_cannot_be_kept(no_place_for_kernels, monkeypatch, caplog):
    monkeypatch.setattr(stage_module, "rules_are_compiled", lambda: False)
    monkeypatch.setattr(stage_module, "WORTH_COMPILING", 1)
    stage = CleanStage(RulesConfig())
    parts = [stage.process(_table()), stage.process(_table())]
    slow = CleanStage(RulesConfig(engine="python")).process(_table())
    assert [part.kept for part in parts] == [slow.kept] * 2
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "no locator available" in caplog.text


def test_an_engine_that_is_asked_for_and_cannot_be_loaded_is_an_error_that_says_what_to_do(no_place_for_kernels):
    with pytest.raises(ConfigError, match=r"(?s)no locator available.*be written, or take engine: python"):
        CleanStage(RulesConfig(engine="compiled")).setup()


def test_kernels_that_are_compiled_are_taken_at_once():
    import corpusmill.rules.compiled.engine  # noqa: F401 - compiles them where nobody has
    from corpusmill.kernel_folder import rules_are_compiled

    assert rules_are_compiled()
    stage = CleanStage(RulesConfig())
    stage.setup()
    assert stage._compiled is not None
    stage = CleanStage(RulesConfig(engine="python"))
    stage.setup()
    assert stage._compiled is None


def test_a_rule_set_without_a_kernel_is_measured_by_the_definitions(monkeypatch):
    from dataclasses import replace

    from corpusmill.rules.presets import PRESETS, Rule

    rule = Rule("made_up.rule", "gopher_quality_n_words", "above", None, "ours: a set that no kernel knows")
    wider = replace(PRESETS["fineweb"], rules=(*PRESETS["fineweb"].rules, rule))
    monkeypatch.setitem(PRESETS, "fineweb", wider)
    stage = CleanStage(RulesConfig(engine="compiled"))
    stage._load()
    assert stage._compiled is None
