"""Tables of refiner builds: the documents that were sampled, and the examples that were made of them.

A build is identified by its recipe and the content it samples, so an example, the model trained on it and the page it
came from can be followed in both directions.
"""

import pyarrow as pa

from corpusmill.schema import STRING, TableSpec, required

BUILD_PARTITION = ("refiner", "build")

SEED_DOCUMENTS = TableSpec(
    "seed_documents",
    pa.schema(
        [
            required("refiner", STRING),
            required("build", STRING),
            required("shard", STRING),
            required("doc_id", STRING),
            required("domain", STRING),
            required("source", STRING),
            required("text", STRING),
            pa.field("html", STRING),
            pa.field("gold", STRING),
            pa.field("remove", pa.large_list(pa.int64())),
            pa.field("unsure", pa.large_list(pa.int64())),
            required("tier", STRING),
        ]
    ),
    partition=BUILD_PARTITION,
    low_cardinality=("refiner", "build", "shard", "source", "tier"),
)

REFINER_EXAMPLES = TableSpec(
    "refiner_examples",
    pa.schema(
        [
            required("refiner", STRING),
            required("build", STRING),
            required("split", STRING),
            required("kind", STRING),
            required("doc_id", STRING),
            required("domain", STRING),
            required("first_line", pa.int64()),
            required("text", STRING),
            pa.field("unsure", pa.large_list(pa.int64())),
            required("label", STRING),
            required("reason", STRING),
            required("route", STRING),
            required("teacher", STRING),
            required("provenance", STRING),
        ]
    ),
    partition=BUILD_PARTITION,
    sort=("split", "doc_id", "first_line"),
    low_cardinality=("refiner", "build", "split", "kind", "reason", "route", "teacher"),
)

BUILD_TABLES = (SEED_DOCUMENTS, REFINER_EXAMPLES)
