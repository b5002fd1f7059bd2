"""Block lists are read from files, and URLs are measured against them."""

import gzip
import hashlib

import pytest

from corpusmill.errors import ConfigError
from corpusmill.rules.bad_words import compile_words, load_bad_words, measure
from corpusmill.rules.config import ListFile, RulesConfig
from corpusmill.rules.lists import contains, read_hashes, read_lines, write_hashes
from corpusmill.rules.url import load_url_rules


@pytest.fixture
def domains(tmp_path):
    path = tmp_path / "domains.txt"
    path.write_text("# comment\nbad.com\n\n evil.co.uk \nhost.listed.org\n")
    return path


def test_lists_are_read_without_comments_and_blanks(domains, tmp_path):
    packed = tmp_path / "domains.txt.gz"
    packed.write_bytes(gzip.compress(domains.read_bytes()))
    wanted = ["bad.com", "evil.co.uk", "host.listed.org"]
    assert read_lines(ListFile(path=str(domains)), "x") == wanted
    assert read_lines(ListFile(path=str(packed)), "x") == wanted


def test_a_hashed_list_holds_the_same_entries_as_its_text(domains, tmp_path):
    stored = tmp_path / "domains.npy"
    assert write_hashes(domains, stored) == 3
    for file in (domains, stored):
        hashes = read_hashes(ListFile(path=str(file)), "x")
        assert contains(hashes, "evil.co.uk")
        assert not contains(hashes, "good.com")
        assert not contains(hashes, "")


def test_a_list_with_another_digest_is_refused(domains):
    right = hashlib.sha256(domains.read_bytes()).hexdigest()
    assert read_lines(ListFile(path=str(domains), sha256=right), "x")
    with pytest.raises(ConfigError, match="has sha256"):
        read_lines(ListFile(path=str(domains), sha256="0" * 64), "url_domains")
    with pytest.raises(ConfigError, match="does not exist"):
        read_lines(ListFile(path="/nowhere/list"), "url_domains")


def test_urls_are_measured_against_every_list(domains, tmp_path):
    words = tmp_path / "words.txt"
    words.write_text("Casino\nporn\n")
    config = RulesConfig.load(
        {"url_domains": str(domains), "url_words": {"path": str(words)}, "url_subwords": str(words)}
    )
    rules = load_url_rules(config)
    measures = rules.measure("https://www.Evil.co.uk/play/CASINO-porn/casi-no")
    assert measures["url_domain_listed"] == 1
    assert measures["url_host_listed"] == 0
    assert measures["url_listed"] is None
    assert measures["url_n_banned_words"] == 2
    assert measures["url_n_soft_banned_words"] is None
    assert measures["url_n_banned_subwords"] == 2
    assert rules.measure("http://host.listed.org")["url_host_listed"] == 1


@pytest.mark.parametrize(
    "url", ["", "x", "http://", "http://[bad/", "http://[::1]/", "\x00", "http://\u00fc.example/\ud800"]
)
def test_any_string_is_a_url(domains, url):
    assert load_url_rules(RulesConfig(url_domains=ListFile(path=str(domains)))).measure(url)["url_domain_listed"] == 0


def test_without_lists_there_is_nothing_to_measure():
    assert load_url_rules(RulesConfig()) is None


def test_bad_words_need_borders_where_words_have_spaces():
    english, japanese = compile_words(["ass", "big ass"], "en"), compile_words(["\u60aa"], "ja")
    assert measure("An Ass.", english) == {"c4_n_bad_words": 1}
    assert measure("a class of glass", english) == {"c4_n_bad_words": 0}
    assert measure("\u6700\u60aa\u3060", japanese) == {"c4_n_bad_words": 1}
    assert measure("anything", None) == {"c4_n_bad_words": None}


def test_common_parts_of_words_are_taken_out_of_every_list():
    assert compile_words(["sm", "\u6027"], "ja") is None


def test_the_published_lists_load(shared_data):
    folder = shared_data / "lists" / "ldnoobw"
    patterns = load_bad_words({path.stem: ListFile(path=str(path)) for path in sorted(folder.glob("*.txt"))})
    assert len(patterns) == 28
    assert not patterns["en"].search("a perfectly decent sentence about dickens and scunthorpe")
