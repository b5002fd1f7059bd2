"""The bundled fastText model identifies languages on the whole text."""

import gzip
import json
from collections import defaultdict

import pytest

from corpusmill.errors import ConfigError
from corpusmill.rules.config import ListFile
from corpusmill.rules.language import UNKNOWN_LANGUAGE, LanguageIdentifier

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
