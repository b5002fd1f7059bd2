"""The bundled fastText model identifies languages, on the whole text or on a sample that leaves no doubt."""

import gzip
import json
from collections import defaultdict
from itertools import pairwise

import pytest

from corpusmill.errors import ConfigError
from corpusmill.rules.config import ListFile, RulesConfig
from corpusmill.rules.language import (
    SAMPLED_CHARS,
    SURE,
    UNKNOWN_LANGUAGE,
    WINDOW_CHARS,
    WINDOWS,
    LanguageIdentifier,
    sample_of,
)
from corpusmill.rules.stage import CleanStage

ENGLISH = "The quick brown fox jumps over the lazy dog and runs into the forest."
GERMAN = "Der schnelle braune Fuchs springt ueber den faulen Hund und laeuft in den Wald."


@pytest.fixture(scope="module")
def identifier():
    return LanguageIdentifier()


def test_languages_are_identified_with_scores(identifier):
    language, score, wanted = identifier.identify(GERMAN, {"en"})
    assert language == "de"
    assert score > 0.9
    assert wanted < 0.1
    assert identifier.identify(ENGLISH).wanted_score is None
    assert identifier.identify(ENGLISH, {"en"}).wanted_score == identifier.identify(ENGLISH).score


def test_newlines_count_as_spaces(identifier):
    assert identifier.identify(ENGLISH.replace(" ", "\n")) == identifier.identify(ENGLISH)


@pytest.mark.parametrize("text", ["", " \n\t", "\u3000"])
def test_a_text_without_visible_characters_has_no_language(identifier, text):
    assert identifier.identify(text) == UNKNOWN_LANGUAGE


def test_max_chars_looks_at_the_beginning_only():
    whole, beginning = LanguageIdentifier(), LanguageIdentifier(max_chars=len(GERMAN))
    text = GERMAN + " " + ENGLISH * 20
    assert whole.identify(text).language == "en"
    assert beginning.identify(text) == whole.identify(GERMAN)


def test_a_lone_surrogate_is_no_error(identifier):
    assert identifier.identify("\ud800 " + ENGLISH).language == "en"


def test_a_wrong_model_file_is_refused(tmp_path):
    path = tmp_path / "model.bin"
    path.write_bytes(b"no model")
    with pytest.raises(ConfigError, match="is not a fastText model"):
        LanguageIdentifier(ListFile(path=str(path)))
    with pytest.raises(ConfigError, match="has sha256"):
        LanguageIdentifier(ListFile(path=str(path), sha256="0" * 64))


def test_the_declaration_of_human_rights_is_recognised_in_its_languages(identifier, shared_data):
    codes = {
        "deu": "de",
        "eng": "en",
        "fra": "fr",
        "spa": "es",
        "ita": "it",
        "rus": "ru",
        "pol": "pl",
        "tur": "tr",
        "nld": "nl",
    }
    texts = defaultdict(list)
    with gzip.open(shared_data / "eval" / "langid_udhr.jsonl.gz", "rt") as stream:
        for record in map(json.loads, stream):
            if record["lang"] in codes and len(record["text"]) > 80:
                texts[codes[record["lang"]]].append(record["text"])
    assert len(texts) >= 5
    right = {
        code: sum(identifier.identify(t).language == code for t in found) / len(found) for code, found in texts.items()
    }
    assert min(right.values()) > 0.9, right


def test_a_sample_is_windows_from_the_first_to_the_last_character():
    text = "".join(chr(0x4E00 + k) for k in range(5000))
    windows = sample_of(text).split("\n")
    assert len(windows) == WINDOWS
    assert all(len(window) == WINDOW_CHARS and window in text for window in windows)
    assert windows[0] == text[:WINDOW_CHARS]
    assert windows[-1] == text[-WINDOW_CHARS:]
    assert len({ord(b[0]) - ord(a[0]) for a, b in pairwise(windows)}) <= 2


def test_a_sample_decides_only_where_it_leaves_no_doubt(identifier):
    sampled = LanguageIdentifier(sample=True)
    clear, doubtful = ENGLISH * 60, "\n".join([ENGLISH * 20, GERMAN * 20])
    assert sampled.identify(clear) == identifier.identify(sample_of(clear))
    assert sampled.identify(clear).score > SURE
    assert identifier.identify(sample_of(doubtful)).score < SURE
    assert sampled.identify(doubtful, {"en"}) == identifier.identify(doubtful, {"en"})


def test_a_short_text_is_judged_as_a_whole(identifier):
    text = (ENGLISH * 60)[: SAMPLED_CHARS - 1]
    assert LanguageIdentifier(sample=True).identify(text) == identifier.identify(text)


@pytest.mark.parametrize("text", [" " * 10_000, "\n" * 10_000, "\ud800" * 10_000, "a" * 1_000_000, "1 " * 50_000])
def test_odd_long_texts_are_judged_in_bounds(text):
    found = LanguageIdentifier(sample=True).identify(text, {"en"})
    assert found == UNKNOWN_LANGUAGE or 0 <= found.score <= 1.01


@pytest.mark.slow
def test_the_stage_samples_unless_told_to_read_all(identifier):
    text = ENGLISH * 100
    scores = {}
    for choice in ("sample", "whole"):
        stage = CleanStage(RulesConfig(language_text=choice))
        scores[choice] = stage.measure(text).identified.score
    assert scores["whole"] == identifier.identify(text).score
    assert scores["sample"] == identifier.identify(sample_of(text)).score


@pytest.mark.slow
def test_decisions_on_real_pages_agree_with_the_whole_text(identifier, shared_data):
    sampled = LanguageIdentifier(sample=True)
    texts = []
    for path in sorted((shared_data / "web_jsonl").glob("*.jsonl.gz")):
        with gzip.open(path, "rt") as stream:
            texts += [json.loads(line)["text"] for line in stream]
    with gzip.open(shared_data / "refine" / "dev.jsonl.gz", "rt") as stream:
        texts += ["\n".join(json.loads(line)["lines"]) for line in stream]

    def decided(found):
        return found.language, found.score > 0.65, found.wanted_score > 0.65

    equal = [decided(identifier.identify(t, {"en"})) == decided(sampled.identify(t, {"en"})) for t in texts]
    assert len(equal) > 200
    assert sum(equal) >= 0.995 * len(equal)
