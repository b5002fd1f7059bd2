"""Every machine reason with one sentence; a test compares them with those that the source produces."""

from corpusmill.prox import program_execution as programs
from corpusmill.prox.refiner import TOO_LONG_PROMPT
from corpusmill.pruning.scoring import TOO_FEW_TOKENS
from corpusmill.reference.markdown import named, page, table
from corpusmill.reference.synthesis_reasons import SYNTHESIS
from corpusmill.rules.decision import LOW_SCORE, NOT_IDENTIFIED, NOT_WANTED
from corpusmill.rules.presets import PRESETS, Rule

RULES: dict[str, str] = {
    "url.domain": "the registered domain stands in `url_domains`",
    "url.host": "the host stands in `url_domains`",
    "url.exact": "the whole URL stands in `url_exact`",
    "url.banned_word": "words of `url_words` in the URL",
    "url.soft_banned_words": "words of `url_soft_words` in the URL",
    "url.banned_subword": "strings of `url_subwords` in the letters and digits of the URL",
    "gopher_repetition.empty": "characters of the text",
    "gopher_repetition.dup_para_frac": "share of paragraphs that stood before already",
    "gopher_repetition.dup_para_char_frac": "characters of such paragraphs as a share of the text",
    "gopher_repetition.dup_line_frac": "share of lines that stood before already",
    "gopher_repetition.dup_line_char_frac": "characters of such lines as a share of the text",
    **{
        f"gopher_repetition.top_{n}_gram": f"characters of the most frequent {n}-gram as a share of the text"
        for n in (2, 3, 4)
    },
    **{
        f"gopher_repetition.dup_{n}_grams": f"characters of repeated {n}-grams as a share of the text"
        for n in (5, 6, 7, 8, 9, 10)
    },
    "gopher_quality.short_doc": "words that are more than punctuation",
    "gopher_quality.long_doc": "words that are more than punctuation",
    "gopher_quality.short_words": "mean length of such words in characters",
    "gopher_quality.long_words": "mean length of such words in characters",
    "gopher_quality.too_many_hashes": "number signs per word",
    "gopher_quality.too_many_ellipses": "ellipses per word",
    "gopher_quality.too_many_bullets": "share of lines that begin with a bullet",
    "gopher_quality.too_many_end_ellipses": "share of lines that end in an ellipsis",
    "gopher_quality.too_few_alpha_words": "share of words with a letter",
    "gopher_quality.too_few_stop_words": "different words of: the, be, to, of, and, that, have, with",
    "c4.lorem_ipsum": "number of the first line with `lorem ipsum`, 0 for none",
    "c4.curly_bracket": "number of the first line with `{`, 0 for none",
    "c4.too_few_sentences": "sentences in the lines that C4 keeps",
    "c4.bad_words": "words of the language's list in `bad_words`",
    "fineweb.empty": "lines that are not blank",
    "fineweb.line_punct_ratio": "share of lines that end in a terminal punctuation mark",
    "fineweb.short_line_ratio": "share of lines of at most 30 characters",
    "fineweb.char_dup_ratio": "characters of lines that stood before already as a share of the text",
    "fineweb.list_ratio": "line breaks per word",
}
"""What the measure of each rule is."""

LANGUAGE: dict[str, str] = {
    NOT_IDENTIFIED: "The model names no language, for instance of a text without letters.",
    NOT_WANTED: "The best language is not one of `languages`, and no wanted one scores above `min_language_score`.",
    LOW_SCORE: "The language is wanted, but its score is not above `min_language_score`.",
}

QUARANTINED: dict[str, str] = {
    "ingest.bad_file": "The file could not be fetched for good, or is no crawl file; nothing of it was read.",
    "ingest.bad_gzip_member": "A gzip member is corrupt; its whole records before the damage are kept.",
    "ingest.cut_gzip_member": "The file ends inside a gzip member.",
    "ingest.bad_record": "A record has no usable head or does not end where its length says; reading goes on behind.",
    "ingest.record_too_large": "A record is longer than `max_bytes_record`.",
    "ingest.bad_http": "A response does not begin with an HTTP status line.",
    "ingest.too_large": "The page is longer than `max_bytes_html` after decompression.",
    "ingest.undecodable": "The bytes of the page could not be decoded to text.",
    "ingest.extract_failed": "The extractor raised an error on the page.",
    "ingest.extract_timeout": "Extraction took more CPU time than `max_seconds`.",
    "ingest.extract_crashed": "The extractor's process died on the page twice.",
    "ingest.no_text": "The page is empty, or the extractor found no text in it.",
    "ingest.no_url": "The record names no URL.",
    "ingest.duplicate_id": "Another record of the file has this document id; the first one is kept.",
}
"""Rows of ``ops.quarantine``."""

COUNTED: dict[str, str] = {
    "ingest.http_status": "Responses whose status is not in `accepted_statuses`.",
    "ingest.content_type": "Records whose type is not accepted.",
    "ingest.min_chars": "Pages with less text than `min_chars`.",
    "ingest.revisit": "Revisit records: the page is unchanged since an earlier fetch and has no content here.",
    "ingest.resource": "Resource records, which are no fetched pages.",
    "ingest.response": "Response records in a run that reads WET.",
    "ingest.conversion": "Conversion records in a run that reads WARC.",
}
"""Metrics of a report; the records are expected, so there is no row for them."""
RECORD_KINDS = ("ingest.revisit", "ingest.resource", "ingest.response", "ingest.conversion")
"""Those of `COUNTED` that are named after the record's type."""

DEDUPLICATED: dict[str, str] = {
    "deduplicate.exact_same_crawl": "A copy with a lower document id stands in the same crawl.",
    "deduplicate.exact_older_crawl": "A copy stands in the published corpus of an older crawl.",
    "deduplicate.near_same_crawl": "A near duplicate with a lower document id is in the same crawl.",
    "deduplicate.near_older_crawl": "A near duplicate of an older crawl is published or went for a published one.",
    "deduplicate.exact_published_crawl": "A copy was published before, in whatever crawl (`first_published`).",
    "deduplicate.near_published_crawl": "A near duplicate was published before, in whatever crawl (`first_published`).",
    "deduplicate.lines_too_little_left": "More than `max_removed` of its text stands in other documents of the crawl.",
    "deduplicate.lines_nothing_left": "All lines of its text stand in other documents of the crawl.",
}

DOCUMENT_CODES: dict[str, str] = {
    programs.KEPT: "Kept: the program says so.",
    programs.DROPPED_MODEL: "Removed: the model says so, by its call or by its margin against `threshold`.",
    programs.DROPPED_MIN_WORDS: "Removed without a call of the model: the document has no words.",
    programs.UNPARSED: "Kept: the output holds no call that decides.",
    programs.EMPTY_OUTPUT: "Kept: the model wrote nothing.",
}
CHUNK_CODES: dict[str, str] = {
    programs.KEPT: "Unchanged: no program wanted a change, or its calls came to nothing.",
    programs.EDITED: "At least one operation changed the text.",
    programs.DROPPED_RATIO: "The document is removed: its programs take away at least `max_removed` of its words.",
    programs.DROPPED_MIN_WORDS: "The document is removed: at most `min_words` words are left.",
    programs.REJECTED_ERRORS: "Unchanged: the output has `max_errors` malformed calls or more.",
    programs.REJECTED_RATIO: "Unchanged: less than `min_kept` of the words would be left.",
    programs.EMPTY_OUTPUT: "Unchanged: the model wrote nothing.",
    programs.UNPARSED: "Unchanged: the output holds no call.",
    programs.TRUNCATED: "Unchanged: the output ended inside its first call.",
    programs.NORMALIZE_MISS: "Unchanged: no string to be replaced occurs.",
    programs.NORMALIZE_TINY_SOURCE: "Unchanged: strict mode replaces no string of less than two non-blank characters.",
    programs.LOOPED: "The model repeated itself and was stopped; what stands before the repetition was executed.",
    TOO_LONG_PROMPT: "Unchanged: the prompt is longer than `max_prompt_tokens` and was not sent.",
}

SCORED: dict[str, str] = {TOO_FEW_TOKENS: "The text has no token to score; the document has no score and goes on."}
PACKED: dict[str, str] = {
    "pack.in_remainder": "All tokens of the document lie behind its file's last full sequence; it is in no sequence."
}
SELECTED: dict[str, str] = {
    "select.not_selected": "The score lies outside the part that is kept.",
    "select.unscored": "The document has no score and `keep_unscored` is false.",
}
ERRORS: dict[str, str] = {
    "error.url": "The URL lists failed on the document.",
    "error.language": "Language identification failed on the document.",
    "error.gopher_repetition": "The Gopher repetition measures failed on the document.",
    "error.gopher_quality": "The Gopher quality measures failed on the document.",
    "error.c4": "The C4 rules failed on the document.",
    "error.fineweb": "The FineWeb measures failed on the document.",
    "error.pii": "Masking failed on the document.",
    "error.<exception>": "A refiner raised this exception on the document, for instance `error.value_error`.",
    "error.null_text": "The row has no text: score, and files given to `corpusmill run`.",
    "error.null_tokens": "The row of a packed sequence has no tokens.",
    "error.token_id": "A packed sequence holds an id that the reference model's tokenizer does not have.",
    "error.tokenizer": "The tokenizer of the reference model failed on the text.",
    "error.out_of_memory": "One window of the document alone does not fit the memory of the device.",
    "error.non_finite_score": "The loss of the document is not a finite number.",
}
"""Per-document faults, by any stage."""
RULE_SET_ERRORS = tuple(list(ERRORS)[:7])
"""Those of `ERRORS` that are named after a rule set."""


def all_rules() -> dict[str, Rule]:
    """Returns every rule of every preset by its reason, in order of first mention."""
    return {rule.reason: rule for preset in PRESETS.values() for rule in preset.rules}


def reasons_page() -> str:
    """Returns the page of all reasons, by stage."""
    introduction = (
        "Why a document or an input did not go on. Reports, tables and settings name these reasons; they are renamed "
        "only with a changelog entry."
    )
    blocks = (
        *("## ingest: quarantined", "Rows of `ops.quarantine`.", named("reason", QUARANTINED)),
        *("## ingest: counted", "Metrics of the report, not rows.", named("metric", COUNTED)),
        *("## clean: rules", RULES_NOTE, _rules(), "### Presets", PRESETS_NOTE, _presets()),
        *("## clean: language", "`documents.drop_reason`.", named("reason", LANGUAGE)),
        *(
            "## deduplicate",
            "Counts of the report; of lines also `duplicate_lines.reason`.",
            named("reason", DEDUPLICATED),
        ),
        *("## refine_documents", "`document_refinements.reason`.", named("reason", DOCUMENT_CODES)),
        *("## refine_chunks", CHUNKS_NOTE, named("reason", CHUNK_CODES)),
        *("## pack", "Counts of the report, where sequences are pruned.", named("reason", PACKED)),
        *("## score", "`scores.skipped_reason`.", named("reason", SCORED)),
        *("## select", "Counts of the report.", named("reason", SELECTED)),
        *("## Errors", ERRORS_NOTE, named("reason", ERRORS)),
        *("## Building a refiner", SYNTHESIS_NOTE, named("reason", SYNTHESIS)),
    )
    return page("Reasons", introduction, blocks)


RULES_NOTE = (
    "`documents.drop_reason`. A document is removed where the measure lies strictly below or above the threshold; the "
    "first rule that it fails gives the reason. Rules marked English hold for documents in English only (setting "
    "`english_rules`). `overrides` changes a threshold or switches a rule off."
)
PRESETS_NOTE = (
    "Rule sets in the order in which they are asked; language comes behind the URL lists. C4 also removes lines and "
    "citation marks; in `overrides` these rules are `c4.line_long_word`, `c4.line_few_words`, `c4.line_citations`, "
    "`c4.line_no_end_punctuation`, `c4.line_javascript` and `c4.line_policy`."
)
CHUNKS_NOTE = "`chunk_refinements.reason` of the document, and `programs[].reason` of each of its chunks."
SYNTHESIS_NOTE = "`refiner_examples.reason` of documents and windows without a label (`split` is `rejected`)."
ERRORS_NOTE = (
    "A stage failed on one document. Where a stage has the setting `max_error_fraction`, a shard with more fails."
)


def _rules() -> str:
    rows = []
    for rule in all_rules().values():
        presets = [name for name, preset in PRESETS.items() if rule.reason in {r.reason for r in preset.rules}]
        measure = f"`{rule.measure}`: {RULES[rule.reason]}"
        english = "" if rule.every_language else "yes"
        shown = "all" if len(presets) == len(PRESETS) else ", ".join(presets)
        rows.append((f"`{rule.reason}`", measure, f"{rule.drop} {rule.threshold:g}", english, shown, rule.source))
    return table(("reason", "measure", "removed", "English", "presets", "source"), rows)


def _presets() -> str:
    rows = [(f"`{p.name}`", p.description, ", ".join(p.rule_sets)) for p in PRESETS.values()]
    return table(("preset", "what it reproduces", "rule sets"), rows)
