"""The compiled engine in the stage: the same rows, the same fingerprint, loaded only where it is asked for."""

import subprocess
import sys

import pyarrow as pa
import pytest

pytest.importorskip("numba")

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
    config = RulesConfig(engine="compiled")
    assert stage_module._compiled_rules(config, turned) is None
    assert stage_module._compiled_rules(config, PRESETS["none"]) is None
    assert stage_module._compiled_rules(RulesConfig(), fineweb) is None
    assert stage_module._compiled_rules(config, fineweb) is not None


def test_only_the_compiled_engine_imports_numba():
    code = (
        "import sys, corpusmill.rules.stage as s; s.CleanStage(s.RulesConfig()).setup(); print('numba' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_rule_set_without_a_kernel_is_measured_by_the_definitions(monkeypatch):
    from dataclasses import replace

    from corpusmill.rules.presets import PRESETS, Rule

    rule = Rule("made_up.rule", "gopher_quality_n_words", "above", None, "ours: a set that no kernel knows")
    wider = replace(PRESETS["fineweb"], rules=(*PRESETS["fineweb"].rules, rule))
    monkeypatch.setitem(PRESETS, "fineweb", wider)
    stage = CleanStage(RulesConfig(engine="compiled"))
    stage._load()
    assert stage._compiled is None
