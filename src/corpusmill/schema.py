"""Arrow schemas and column names of every lakehouse table, and the document-id rule.

Column names are API: they are renamed only with a changelog entry. Strings are ``large_string`` because that is what
Iceberg tables read back as. Counts are int64, shares and scores float64, times are UTC.
"""

import hashlib
import uuid
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

STRING = pa.large_string()
TIME = pa.timestamp("us", tz="UTC")


def required(name: str, type_: pa.DataType) -> "pa.Field[Any]":
    """Returns a field that must not be null."""
    return pa.field(name, type_, nullable=False)


@dataclass(frozen=True)
class TableSpec:
    """One lakehouse table.

    Attributes:
        name: Table name inside its namespace.
        schema: Arrow schema.
        partition: Identity partition columns, in order; a commit replaces exactly one combination of their values.
        sort: Columns by which the rows of each input file are sorted.
        low_cardinality: Columns that are dictionary-encoded in Parquet; all others are not.
    """

    name: str
    schema: pa.Schema
    partition: tuple[str, ...] = ("crawl",)
    sort: tuple[str, ...] = ("doc_id",)
    low_cardinality: tuple[str, ...] = ("crawl", "warc_file", "language", "drop_reason", "reason", "model_id")


# Every measure that the rules write, for every document, kept or not; null where a measure is not defined.
# Each is measured on the text its rule set would see if all rule sets before it had kept the document.
RULE_MEASURES: tuple[str, ...] = (
    "url_domain_listed",
    "url_host_listed",
    "url_listed",
    "url_n_banned_words",
    "url_n_soft_banned_words",
    "url_n_banned_subwords",
    "language_wanted_score",
    "gopher_repetition_n_chars",
    "gopher_repetition_dup_para_frac",
    "gopher_repetition_dup_para_char_frac",
    "gopher_repetition_dup_line_frac",
    "gopher_repetition_dup_line_char_frac",
    "gopher_repetition_top_2_gram",
    "gopher_repetition_top_3_gram",
    "gopher_repetition_top_4_gram",
    "gopher_repetition_dup_5_grams",
    "gopher_repetition_dup_6_grams",
    "gopher_repetition_dup_7_grams",
    "gopher_repetition_dup_8_grams",
    "gopher_repetition_dup_9_grams",
    "gopher_repetition_dup_10_grams",
    "gopher_quality_n_words",
    "gopher_quality_mean_word_length",
    "gopher_quality_hash_ratio",
    "gopher_quality_ellipsis_ratio",
    "gopher_quality_bullet_line_ratio",
    "gopher_quality_end_ellipsis_line_ratio",
    "gopher_quality_alpha_word_ratio",
    "gopher_quality_n_stop_words",
    "c4_n_lines",
    "c4_n_lines_removed",
    "c4_n_sentences",
    "c4_lorem_ipsum_line",
    "c4_curly_bracket_line",
    "c4_n_bad_words",
    "fineweb_n_lines",
    "fineweb_line_punct_ratio",
    "fineweb_short_line_ratio",
    "fineweb_char_dup_ratio",
    "fineweb_list_ratio",
)

PAGES = TableSpec(
    "pages",
    pa.schema(
        [
            required("crawl", STRING),
            required("extraction", STRING),
            required("doc_id", STRING),
            required("url", STRING),
            pa.field("fetch_time", TIME),
            required("warc_file", STRING),
            required("warc_offset", pa.int64()),
            required("warc_length", pa.int64()),
            pa.field("http_status", pa.int32()),
            pa.field("content_type", STRING),
            pa.field("charset", STRING),
            pa.field("n_bytes_html", pa.int64()),
            required("text", STRING),
            required("text_digest", STRING),
            required("n_chars", pa.int64()),
            required("n_surrogates", pa.int64()),
            required("truncated", pa.bool_()),
        ]
    ),
    partition=("crawl", "extraction"),
    low_cardinality=("crawl", "extraction", "warc_file", "content_type", "charset"),
)

DOCUMENTS = TableSpec(
    "documents",
    pa.schema(
        [
            required("crawl", STRING),
            required("doc_id", STRING),
            required("url", STRING),
            required("warc_file", STRING),
            pa.field("language", STRING),
            pa.field("language_score", pa.float64()),
            *[pa.field(name, pa.float64()) for name in RULE_MEASURES],
            required("n_chars_raw", pa.int64()),
            required("n_chars", pa.int64()),
            required("n_pii", pa.int64()),
            required("kept", pa.bool_()),
            pa.field("drop_reason", STRING),
            pa.field("dedup_digest", STRING),
            pa.field("text", STRING),
        ]
    ),
    sort=("language", "doc_id"),
)

# The deduplication index of a crawl: per band the sorted keys of its documents. No column names the input file, because
# rows would then be sorted by file before they are sorted by key.
MINHASH = TableSpec(
    "minhash",
    pa.schema(
        [
            required("crawl", STRING),
            required("made_by", STRING),
            required("band", pa.int32()),
            required("key", pa.binary(16)),
            required("doc_id", STRING),
        ]
    ),
    sort=("band", "key", "doc_id"),
    low_cardinality=("crawl", "made_by", "band"),
)

DUPLICATES = TableSpec(
    "duplicates",
    pa.schema(
        [
            required("crawl", STRING),
            required("doc_id", STRING),
            required("warc_file", STRING),
            required("kind", STRING),
            required("cluster", STRING),
            required("duplicate_of", STRING),
            required("duplicate_of_crawl", STRING),
            required("similarity", pa.float64()),
            required("kept", pa.bool_()),
            pa.field("cluster_crawl", STRING),
        ]
    ),
    low_cardinality=("crawl", "warc_file", "kind", "duplicate_of_crawl", "cluster_crawl"),
)

# What a crawl's repeated lines cost each document that has some; offsets are characters of the cleaned text.
REMOVED_UNIT = pa.struct(
    [
        pa.field("unit", pa.int64()),
        pa.field("start", pa.int64()),
        pa.field("end", pa.int64()),
        pa.field("duplicate_of", STRING),
        pa.field("duplicate_of_unit", pa.int64()),
    ]
)
DUPLICATE_LINES = TableSpec(
    "duplicate_lines",
    pa.schema(
        [
            required("crawl", STRING),
            required("doc_id", STRING),
            required("warc_file", STRING),
            required("kept", pa.bool_()),
            required("reason", STRING),
            required("unit", STRING),
            required("n_units", pa.int64()),
            required("n_units_removed", pa.int64()),
            required("n_chars", pa.int64()),
            required("n_chars_removed", pa.int64()),
            required("removed", pa.large_list(REMOVED_UNIT)),
        ]
    ),
    low_cardinality=("crawl", "warc_file", "reason", "unit"),
)

# What a refiner's output depends on; null in rows of versions that did not store it.
OUTPUT_IDENTITY = (pa.field("output_key", STRING), pa.field("text_digest", STRING))

DOCUMENT_REFINEMENTS = TableSpec(
    "document_refinements",
    pa.schema(
        [
            required("crawl", STRING),
            required("doc_id", STRING),
            required("warc_file", STRING),
            required("kept", pa.bool_()),
            required("reason", STRING),
            pa.field("decision", STRING),
            pa.field("margin", pa.float64()),
            pa.field("program", STRING),
            required("n_chars", pa.int64()),
            required("n_prompt_tokens", pa.int64()),
            required("truncated", pa.bool_()),
            required("model_id", STRING),
            *OUTPUT_IDENTITY,
        ]
    ),
    low_cardinality=("crawl", "warc_file", "reason", "decision", "model_id", "output_key"),
)

CHUNK_PROGRAM = pa.struct(
    [
        pa.field("first_line", pa.int64()),
        pa.field("last_line", pa.int64()),
        pa.field("output", STRING),
        pa.field("reason", STRING),
        pa.field("n_errors", pa.int64()),
        pa.field("truncated", pa.bool_()),
        pa.field("note", STRING),
        pa.field("n_prompt_tokens", pa.int64()),
    ]
)
OPERATION = pa.struct(
    [
        pa.field("chunk", pa.int64()),
        pa.field("op", STRING),
        pa.field("first_line", pa.int64()),
        pa.field("last_line", pa.int64()),
        pa.field("source", STRING),
        pa.field("target", STRING),
        pa.field("n_applied", pa.int64()),
    ]
)
CHUNK_REFINEMENTS = TableSpec(
    "chunk_refinements",
    pa.schema(
        [
            required("crawl", STRING),
            required("doc_id", STRING),
            required("warc_file", STRING),
            required("kept", pa.bool_()),
            required("reason", STRING),
            required("mode", STRING),
            required("n_chunks", pa.int64()),
            pa.field("programs", pa.large_list(CHUNK_PROGRAM)),
            pa.field("operations", pa.large_list(OPERATION)),
            required("n_errors", pa.int64()),
            required("n_normalize_misses", pa.int64()),
            required("n_truncated", pa.int64()),
            required("n_chars_before", pa.int64()),
            required("n_chars_after", pa.int64()),
            required("model_id", STRING),
            pa.field("text", STRING),
            *OUTPUT_IDENTITY,
        ]
    ),
    low_cardinality=("crawl", "warc_file", "reason", "mode", "model_id", "output_key"),
)

SPAN = pa.struct(
    [
        pa.field("doc_id", STRING),
        pa.field("start", pa.int64()),
        pa.field("end", pa.int64()),
        pa.field("first_token", pa.int64()),
        pa.field("document_tokens", pa.int64()),
    ]
)
# What a packed sequence is: the same in the table of all sequences and in that of the published ones.
SEQUENCE_COLUMNS = (
    required("crawl", STRING),
    required("sequence_id", STRING),
    required("warc_file", STRING),
    required("sequence_index", pa.int64()),
    required("n_tokens", pa.int64()),
    required("n_bytes", pa.int64()),
    required("n_documents", pa.int64()),
    required("tokens", pa.large_list(pa.int32())),
    required("spans", pa.large_list(SPAN)),
    required("tokenizer_sha256", STRING),
)
SEQUENCES = TableSpec(
    "sequences",
    pa.schema(list(SEQUENCE_COLUMNS)),
    sort=("sequence_index",),
    low_cardinality=("crawl", "warc_file", "tokenizer_sha256"),
)

SCORES = TableSpec(
    "scores",
    pa.schema(
        [
            required("crawl", STRING),
            required("doc_id", STRING),
            required("warc_file", STRING),
            pa.field("language", STRING),
            required("unit", STRING),
            pa.field("nll_sum", pa.float64()),
            pa.field("el2n_sum", pa.float64()),
            required("n_scored", pa.int64()),
            required("n_bytes", pa.int64()),
            required("n_tokens", pa.int64()),
            pa.field("hits", pa.int64()),
            pa.field("first_mismatch", pa.int64()),
            pa.field("memorization", pa.float64()),
            pa.field("memorized", pa.bool_()),
            pa.field("prefix_match", pa.float64()),
            pa.field("top_k_hits", pa.int64()),
            pa.field("excess_nll_sum", pa.float64()),
            required("score_key", STRING),
            pa.field("text_digest", STRING),
            pa.field("skipped_reason", STRING),
        ]
    ),
    low_cardinality=("crawl", "warc_file", "language", "unit", "score_key", "skipped_reason"),
)

CORPUS = TableSpec(
    "corpus",
    pa.schema(
        [
            required("crawl", STRING),
            required("doc_id", STRING),
            required("url", STRING),
            pa.field("language", STRING),
            pa.field("language_score", pa.float64()),
            required("text", STRING),
            required("n_chars", pa.int64()),
            pa.field("n_tokens", pa.int64()),
            pa.field("mean_nll", pa.float64()),
            pa.field("perplexity", pa.float64()),
            pa.field("bits_per_byte", pa.float64()),
            pa.field("el2n", pa.float64()),
            pa.field("memorization", pa.float64()),
            required("dedup_digest", STRING),
            required("warc_file", STRING),
            required("warc_offset", pa.int64()),
            required("warc_length", pa.int64()),
            pa.field("fetch_time", TIME),
            required("recipe_fingerprint", STRING),
        ]
    ),
    sort=("language", "doc_id"),
    low_cardinality=("crawl", "warc_file", "language", "recipe_fingerprint"),
)

CORPUS_SEQUENCES = TableSpec(
    "corpus_sequences",
    pa.schema(
        [
            *SEQUENCE_COLUMNS,
            pa.field("mean_nll", pa.float64()),
            pa.field("perplexity", pa.float64()),
            pa.field("bits_per_byte", pa.float64()),
            pa.field("el2n", pa.float64()),
            pa.field("memorization", pa.float64()),
            required("recipe_fingerprint", STRING),
        ]
    ),
    sort=("sequence_index",),
    low_cardinality=("crawl", "warc_file", "tokenizer_sha256", "recipe_fingerprint"),
)

RUNS = TableSpec(
    "runs",
    pa.schema(
        [
            required("recipe", STRING),
            required("crawl", STRING),
            required("epoch", pa.int64()),
            required("run_id", STRING),
            required("state", STRING),
            required("message", STRING),
            required("config", STRING),
            required("commit_keys", STRING),
            required("report", STRING),
            required("n_published", pa.int64()),
            pa.field("snapshot", STRING),
            pa.field("tag", STRING),
            pa.field("started_at", TIME),
            pa.field("ended_at", TIME),
            required("versions", STRING),
        ]
    ),
    partition=("recipe", "crawl", "epoch"),
    sort=("run_id",),
    low_cardinality=("recipe", "crawl", "state"),
)

QUARANTINE = TableSpec(
    "quarantine",
    pa.schema(
        [
            required("recipe", STRING),
            required("crawl", STRING),
            required("stage", STRING),
            required("warc_file", STRING),
            required("where", STRING),
            required("url", STRING),
            required("reason", STRING),
            required("message", STRING),
            pa.field("first_bytes", pa.large_binary()),
            required("n_bytes_lost", pa.int64()),
        ]
    ),
    partition=("recipe", "crawl", "stage"),
    sort=("where",),
    low_cardinality=("recipe", "crawl", "stage", "warc_file", "reason"),
)

MODELS = TableSpec(
    "models",
    pa.schema(
        [
            required("name", STRING),
            required("version", STRING),
            required("kind", STRING),
            required("location", STRING),
            required("sha256", STRING),
            pa.field("base", STRING),
            pa.field("training_data", STRING),
            pa.field("quality", STRING),
        ]
    ),
    partition=("name", "version"),
    sort=("name",),
    low_cardinality=("name", "kind"),
)

CUTOFFS = TableSpec(
    "cutoffs",
    pa.schema(
        [
            required("recipe", STRING),
            required("crawl", STRING),
            required("score_key", STRING),
            required("column", STRING),
            required("fraction", STRING),
            required("which", STRING),
            required("mode", STRING),
            required("manifest", STRING),
            required("n_scored", pa.int64()),
            required("n_kept", pa.int64()),
            required("n_unscored", pa.int64()),
            pa.field("weight", STRING),
            pa.field("drift_ks", pa.float64()),
            pa.field("drift_psi", pa.float64()),
            pa.field("kept_share", pa.float64()),
            pa.field("warnings", pa.large_list(STRING)),
        ]
    ),
    partition=("recipe", "crawl"),
    sort=("column",),
    low_cardinality=("recipe", "crawl", "column", "which", "mode", "weight"),
)

EPOCHS = TableSpec(
    "epochs",
    pa.schema([required("recipe", STRING), required("crawl", STRING), required("epoch", pa.int64())]),
    partition=("recipe", "crawl"),
    sort=("epoch",),
    low_cardinality=("recipe", "crawl"),
)

RECIPE_TABLES = (
    DOCUMENTS,
    MINHASH,
    DUPLICATES,
    DUPLICATE_LINES,
    DOCUMENT_REFINEMENTS,
    CHUNK_REFINEMENTS,
    SEQUENCES,
    SCORES,
    CORPUS,
    CORPUS_SEQUENCES,
)
OPS_TABLES = (RUNS, QUARANTINE, MODELS, CUTOFFS, EPOCHS)


def doc_id_of(record_id: str | None, warc_file: str, warc_offset: int) -> str:
    """Returns the document id: the WARC-Record-ID's UUID, else a 128-bit hash of (WARC file, offset).

    Args:
        record_id: WARC-Record-ID as written (``<urn:uuid:...>``), or None.
        warc_file: Path of the file as its manifest lists it.
        warc_offset: Byte offset of the record's gzip member.

    Returns:
        32 lower-case hex digits with dashes (UUID form) in both cases.
    """
    if record_id:
        tail = record_id.strip().strip("<>").rpartition(":")[2]
        try:
            return str(uuid.UUID(tail))
        except ValueError:
            pass
    digest = hashlib.blake2b(f"{warc_file}\n{warc_offset}".encode(), digest_size=16).digest()
    return str(uuid.UUID(bytes=digest))


def sequence_id_of(warc_file: str, index: int, tokenizer: str, length: int) -> str:
    """Returns the id of a packed sequence: a 128-bit hash of where it stands and how it was packed, in UUID form.

    Args:
        warc_file: Path of the file whose documents were packed, as its manifest lists it.
        index: Number of the sequence inside the file, from 0.
        tokenizer: sha256 of the tokenizer.
        length: Tokens of a sequence.
    """
    digest = hashlib.blake2b(f"{warc_file}\n{index}\n{tokenizer}\n{length}".encode(), digest_size=16).digest()
    return str(uuid.UUID(bytes=digest))


def text_digest(text: str) -> str:
    """Returns 32 hex digits (128-bit BLAKE2b) over the UTF-8 of a text."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
