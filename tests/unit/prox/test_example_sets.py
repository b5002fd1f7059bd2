"""Sets of examples: splits by domain that stay, repeated texts, and labelled pages made of windows."""

import pytest

from corpusmill.errors import ConfigError, PermanentDataError
from corpusmill.prox.annotation_config import SynthesisConfig
from corpusmill.prox.example_sets import drop_duplicates, split_examples, write_labelled_pages
from corpusmill.prox.labelled_pages import read_labelled_pages
from corpusmill.prox.program_synthesis import synthesise
from corpusmill.prox.seed_document import SeedDocument, seed_from_page
from corpusmill.prox.training_examples import DocumentExample, Provenance


def document_example(k, domain=""):
    origin = Provenance(route="scores", teacher="t", details={"domain": domain} if domain else {})
    return DocumentExample(doc_id=f"d{k}", text=f"text {k}", decision="keep", provenance=origin)


def chunk_examples(*documents, **settings):
    return synthesise("gold", documents, None, SynthesisConfig(**settings)).examples


def test_a_split_parts_domains_and_stays_when_examples_are_added():
    examples = [document_example(k, f"site{k % 200}.org") for k in range(1000)]
    train, validation = split_examples(examples, 0.2)
    domains = [{example.provenance.details["domain"] for example in side} for side in (train, validation)]
    assert not domains[0] & domains[1]
    assert 20 < len(domains[1]) < 60
    assert split_examples(examples[:500], 0.2)[1] == [e for e in validation if int(e.doc_id[1:]) < 500]
    assert split_examples(examples, 0.2, salt="other")[1] != validation
    with pytest.raises(ConfigError, match="validation_share"):
        split_examples(examples, 1.0)


def test_examples_without_a_domain_are_split_by_document():
    chunks = chunk_examples(*(SeedDocument(doc_id=f"d{k}", text=f"menu\ntext {k}", remove=(0,)) for k in range(100)))
    train, validation = split_examples([*chunks, *(document_example(k) for k in range(100))], 0.3)
    assert not {example.doc_id for example in train} & {example.doc_id for example in validation}
    assert 20 < len(validation) < 100


def test_repeated_texts_are_dropped_across_shards():
    one = chunk_examples(SeedDocument(doc_id="a", text="menu\ntext", remove=(0,)))
    two = chunk_examples(SeedDocument(doc_id="b", text="menu\ntext", remove=()))
    same_text = DocumentExample(
        doc_id="c", text="menu\ntext", decision="keep", provenance=Provenance(route="scores", teacher="t")
    )
    assert list(drop_duplicates([*one, *two, same_text])) == [*one, same_text]


def test_windows_become_the_labelled_page_that_they_came_from(shared_data, tmp_path):
    pages = read_labelled_pages(shared_data / "refine" / "dev.jsonl.gz")[:20]
    examples = chunk_examples(*(seed_from_page(page) for page in pages), example_lines=50)
    assert len(examples) > 30
    path = tmp_path / "pages.jsonl.gz"
    assert write_labelled_pages(path, examples) == len(pages)
    for page, again in zip(pages, read_labelled_pages(path), strict=True):
        assert (again.doc_id, again.domain, again.tier, again.lines) == (
            page.doc_id,
            page.domain,
            page.tier,
            page.lines,
        )
        assert again.labels.tolist() == page.labels.tolist()


def test_blank_lines_go_and_a_missing_window_parts_a_page(tmp_path):
    document = SeedDocument(doc_id="d", text="menu\n\ntext a\ntext b\ntext c\nfooter", remove=(0, 5), unsure=(3,))
    first, _, last = chunk_examples(document, example_lines=2)
    path = tmp_path / "pages.jsonl"
    assert write_labelled_pages(path, [first, last]) == 2
    one, two = read_labelled_pages(path)
    assert (one.doc_id, one.lines, one.labels.tolist()) == ("d", ("menu",), [1])
    assert (two.doc_id, two.lines, two.labels.tolist()) == ("d#4", ("text c", "footer"), [0, 1])


def test_no_chunk_example_is_no_file(tmp_path):
    with pytest.raises(PermanentDataError, match="no chunk example"):
        write_labelled_pages(tmp_path / "pages.jsonl", [document_example(1)])
    assert list(tmp_path.iterdir()) == []


def test_two_domains_are_enough_for_both_sides():
    examples = [document_example(k, f"site{k % 2}.org") for k in range(10)]
    for salt in map(str, range(20)):
        train, validation = split_examples(examples, 0.01, salt=salt)
        assert not {e.doc_id for e in train} & {e.doc_id for e in validation}
        assert len(train) == len(validation) == 5
