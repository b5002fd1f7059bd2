"""What a published crawl holds, in one digest: the same for equal documents, under whatever key they were published."""

import hashlib

from corpusmill.lakehouse.table import LakeTable


def published_content(corpus: LakeTable, crawl: str) -> str:
    """Returns 32 hex digits over ids and text digests of a crawl's published documents, in the order of their ids.

    Args:
        corpus: The corpus table.
        crawl: Crawl id.
    """
    rows = corpus.scan({"crawl": crawl}, columns=["doc_id", "dedup_digest"]).sort_by("doc_id")
    digest = hashlib.blake2b(digest_size=16)
    for batch in rows.to_batches():
        for row in zip(batch["doc_id"].to_pylist(), batch["dedup_digest"].to_pylist(), strict=True):
            digest.update(f"{row[0]} {row[1]}\n".encode())
    return digest.hexdigest()
