"""Every table of the lakehouse, from `corpusmill.schema`."""

import pyarrow as pa

from corpusmill.build_schema import BUILD_TABLES
from corpusmill.reference.markdown import codes, page, table
from corpusmill.schema import OPS_TABLES, PAGES, RECIPE_TABLES, TableSpec

TABLES: dict[str, str] = {
    "raw.pages": "Fetched pages with their main text; one row per page, shared by recipes with equal extraction.",
    "<recipe>.documents": "Every page after the rules, kept or not, with every measure; text of kept ones only.",
    "<recipe>.minhash": "The deduplication index of a crawl: the band keys of its kept documents, sorted.",
    "<recipe>.duplicates": "Kept documents that have an exact copy or a near duplicate, and which one stays.",
    "<recipe>.duplicate_lines": "Documents that lost lines or paragraphs which the crawl has elsewhere, and where.",
    "<recipe>.document_refinements": "What the document refiner decided on each document that was left.",
    "<recipe>.chunk_refinements": "Programs as emitted, operations as executed, and the refined text.",
    "<recipe>.sequences": "Packed token sequences with the documents they come from, where these are what is scored.",
    "<recipe>.scores": "Sums under the reference model, from which every score is computed.",
    "<recipe>.corpus": "The published documents: what readers read.",
    "<recipe>.corpus_sequences": "The published token sequences with their scores, ready to train on.",
    "ops.runs": "One row per run: its settings, keys, report and outcome.",
    "ops.quarantine": "Inputs that could not be processed.",
    "ops.models": "Models that were registered, with digests, training data and measured quality.",
    "ops.cutoffs": "What selection decided, with the manifest that repeats it.",
    "ops.seed_documents": "Documents that a refiner's build sampled.",
    "ops.refiner_examples": "Training examples of a build, and what was refused with its reason.",
    "ops.epochs": "The newest run of each recipe and crawl; older runs can no longer commit.",
}


def all_tables() -> dict[str, TableSpec]:
    """Returns every table by its full name."""
    recipe = {f"<recipe>.{spec.name}": spec for spec in RECIPE_TABLES}
    return {"raw.pages": PAGES, **recipe, **{f"ops.{spec.name}": spec for spec in (*OPS_TABLES, *BUILD_TABLES)}}


def tables_page() -> str:
    """Returns the page of all tables."""
    introduction = (
        "Iceberg tables of the lakehouse. `<recipe>` is the name of a recipe. Times are UTC. A commit replaces exactly "
        "one combination of the partition columns' values; the sort order holds inside each input file. Column names "
        "are renamed only with a changelog entry."
    )
    return page("Tables", introduction, [block for name, spec in all_tables().items() for block in _blocks(name, spec)])


def _blocks(name: str, spec: TableSpec) -> tuple[str, ...]:
    rows = [(f"`{c.name}`", _type(c.type), "may be null" if c.nullable else "") for c in spec.schema]
    keys = f"Partition: {codes(spec.partition)}. Sort: {codes(spec.sort)}."
    return f"## `{name}`", TABLES[name], keys, table(("column", "type", "null"), rows)


def _type(type_: pa.DataType) -> str:
    if isinstance(type_, pa.LargeListType):
        return f"list of {_type(type_.value_type)}"
    if isinstance(type_, pa.StructType):
        return "struct of " + ", ".join(f"`{field.name}` {_type(field.type)}" for field in type_)
    names = {"large_string": "string", "large_binary": "binary", "timestamp[us, tz=UTC]": "timestamp"}
    names["fixed_size_binary[16]"] = "16 bytes"
    return names.get(str(type_), str(type_))
