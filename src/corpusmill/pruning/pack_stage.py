"""The packing stage: the documents of one input file become token sequences of one length, in the order of their ids.

Source: "When Less is More" (arXiv 2309.04564v1), section 2; see `corpusmill.pruning.packing`. The paper concatenates a
whole corpus. Differs: sequences never cross an input file, so that they depend neither on the sharding nor on other
files; at most one sequence less a token is dropped for each file, and counted.

Not a map stage in the sense of `corpusmill.stage.Stage`: it makes sequences of documents, not rows of rows. Memory is
bounded by the texts that are tokenised at one time and one unfinished sequence.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from corpusmill.batches import rows_to_table
from corpusmill.errors import ConfigError, ModelError
from corpusmill.modeling.load import TextTokenizer, load_tokenizer, model_folder, model_sha256
from corpusmill.pruning.packing import PackedSequence, SequencePacker, Span
from corpusmill.pruning.packing_config import PackingConfig
from corpusmill.schema import SEQUENCES, sequence_id_of
from corpusmill.stage import QuarantinedInput, StageOutput

DOCUMENTS_AT_ONCE = 512
"""Documents that are tokenised together."""
CHARS_AT_ONCE = 4_000_000
"""Characters that are tokenised together, at least one document: about 200 MB of tokens with their offsets."""
IN_REMAINDER = "pack.in_remainder"
"""Reason of a document that stands in no sequence: all its tokens are in the remainder of its file."""


@dataclass
class PackStage:
    """Packs documents by a reference model's tokenizer, an end-of-document token after each, no beginning token."""

    config: PackingConfig
    name: str = "pack"
    input_columns: tuple[str, ...] = ("doc_id", "text")
    _tokenizer: TextTokenizer | None = field(default=None, repr=False)

    def setup(self) -> None:
        """Loads the tokenizer.

        Raises:
            ModelError: It cannot be loaded, is not the expected one, or does not say where in the text a token stands.
            ConfigError: It names no end-of-document token.
        """
        config = self.config
        folder = model_folder(config.model, config.revision)
        if config.sha256 is not None and (found := model_sha256(folder)) != config.sha256:
            raise ModelError(
                f"model {config.model!r} has sha256 {found!r}, expected {config.sha256!r}; it changed since it was "
                "pinned: restore the folder, or pin the new one"
            )
        tokenizer = load_tokenizer(str(folder))
        if tokenizer.eod_id is None:
            raise ConfigError(
                f"model {config.model!r} names no end-of-document token, which packing puts after each document; "
                "set eos_token in its tokenizer_config.json"
            )
        self._tokenizer = replace(tokenizer, backend=_with_places(tokenizer.backend, config.model))

    @property
    def tokenizer(self) -> TextTokenizer:
        """The loaded tokenizer."""
        if self._tokenizer is None:
            self.setup()
        assert self._tokenizer is not None
        return self._tokenizer

    def pack_file(self, crawl: str, warc_file: str, documents: pa.Table) -> Iterator[StageOutput]:
        """Yields the sequences of one input file, a part at a time; a document that fails goes to quarantine.

        ``metrics``: ``documents`` (packed), ``documents_in_remainder`` (in no sequence at all), ``sequences``,
        ``sequence_tokens``, ``remainder_tokens`` (dropped), ``files_without_sequence``.

        Args:
            crawl: Crawl id.
            warc_file: The input file.
            documents: All its documents, in any order.
        """
        ordered = documents.select(list(self.input_columns)).sort_by("doc_id")
        file = _File(crawl, warc_file, self.tokenizer, self.config.length)
        for batch in _batches(ordered):
            yield file.add(batch)
        yield StageOutput(
            SEQUENCES.schema.empty_table(), SEQUENCES.schema.empty_table(), metrics=file.closing_metrics()
        )


class _File:
    """One input file while it is packed."""

    def __init__(self, crawl: str, warc_file: str, tokenizer: TextTokenizer, length: int) -> None:
        assert tokenizer.eod_id is not None
        self._crawl, self._warc_file, self._length = crawl, warc_file, length
        self._tokenizer = tokenizer
        self._packer = SequencePacker(tokenizer.eod_id, length)
        self._bytes = 0  # of the sequence that is not full yet
        self._n_sequences = 0

    def add(self, documents: list[tuple[str, str | None]]) -> StageOutput:
        """Returns the sequences that some more documents fill."""
        rows: list[dict[str, Any]] = []
        faults = []
        n = 0
        for (doc_id, text), encoded in zip(documents, self._encoded([text for _, text in documents]), strict=True):
            if encoded is None:
                reason = "error.null_text" if text is None else "error.tokenizer"
                message = f"text={text!r:.80} could not be turned into tokens; the document is in no sequence"
                faults.append(QuarantinedInput(where=doc_id, reason=reason, message=message))
                continue
            assert text is not None
            rows += self._filled(doc_id, text, encoded)
            n += 1
        metrics = {
            "documents": float(n),
            "sequences": float(len(rows)),
            "sequence_tokens": float(len(rows) * self._length),
            "characters_in": float(sum(len(text or "") for _, text in documents)),
        }
        return StageOutput(
            rows_to_table(rows, SEQUENCES.schema), SEQUENCES.schema.empty_table(), faults, metrics=metrics
        )

    def closing_metrics(self) -> dict[str, float]:
        """Returns what is dropped at the end of the file."""
        rest = self._packer.remainder
        whole = sum(span.first_token == 0 for span in rest.spans)
        return {
            "remainder_tokens": float(len(rest.tokens)),
            "documents_in_remainder": float(whole),
            "files_without_sequence": float(self._n_sequences == 0),
        }

    def _filled(self, doc_id: str, text: str, encoded: Any) -> Iterator[dict[str, Any]]:
        ids = encoded.ids
        counted = 0  # characters of the document whose bytes are counted
        for sequence in self._packer.add(doc_id, ids):
            last = sequence.spans[-1]
            after = last.first_token + last.end - last.start
            upto = encoded.token_to_chars(after)[0] if after < len(ids) else len(text)
            n_bytes = self._bytes + _n_bytes(text[counted:upto])
            yield self._row(sequence, n_bytes)
            counted, self._bytes = upto, 0
        self._bytes += _n_bytes(text[counted:])

    def _row(self, sequence: PackedSequence, n_bytes: int) -> dict[str, Any]:
        index, sha = self._n_sequences, self._tokenizer.sha256
        self._n_sequences += 1
        return {
            "crawl": self._crawl,
            "sequence_id": sequence_id_of(self._warc_file, index, sha, self._length),
            "warc_file": self._warc_file,
            "sequence_index": index,
            "n_tokens": self._length,
            "n_bytes": n_bytes,
            "n_documents": len(sequence.spans),
            "tokens": np.array(sequence.tokens, dtype=np.int32),
            "spans": [
                {"doc_id": s.document, **{name: getattr(s, name) for name in Span._fields[1:]}} for s in sequence.spans
            ],
            "tokenizer_sha256": sha,
        }

    def _encoded(self, texts: list[str | None]) -> list[Any]:
        """Returns each text's tokens with their places in it, None where it is null or the tokenizer fails on it."""
        backend = self._tokenizer.backend
        try:
            found = list(backend.encode_batch([text or "" for text in texts], add_special_tokens=False))
        except Exception:  # noqa: BLE001 - tokenizers raises bare Exception; one bad text must not cost the others
            found = [_encode_one(backend, text or "") for text in texts]
        return [None if text is None else encoded for text, encoded in zip(texts, found, strict=True)]


def _with_places(backend: Any, model: str) -> Any:
    """Returns the `tokenizers.Tokenizer` of a tokenizer, which says where in the text each token stands.

    Raises:
        ModelError: It has none: it is one of those that transformers runs in Python.
    """
    if hasattr(backend, "encode_batch_fast"):
        return backend
    fast = getattr(backend, "backend_tokenizer", None)  # transformers made one of vocabulary and merges
    if fast is None:
        raise ModelError(
            f"model {model!r} has no tokenizer.json, and its {type(backend).__name__} does not say where in the text a "
            "token stands, so the bytes of a sequence cannot be counted. Pack with a model whose tokenizer is fast "
            "(its folder has a tokenizer.json), or score whole documents (score.unit: document), which needs no places"
        )
    fast.no_truncation()
    fast.no_padding()
    fast.encode_special_tokens = True
    return fast


def _encode_one(backend: Any, text: str) -> Any:
    try:
        return backend.encode_batch([text], add_special_tokens=False)[0]
    except Exception:  # noqa: BLE001 - see _encoded
        return None


def _n_bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def _batches(documents: pa.Table) -> Iterator[list[tuple[str, str | None]]]:
    """Yields ids and texts of consecutive documents, few enough to be tokenised together."""
    batch: list[tuple[str, str | None]] = []
    n_chars = 0
    ids, texts = documents["doc_id"], documents["text"]
    for i in range(documents.num_rows):
        text = texts[i].as_py()
        if batch and (len(batch) >= DOCUMENTS_AT_ONCE or n_chars + len(text or "") > CHARS_AT_ONCE):
            yield batch
            batch, n_chars = [], 0
        batch.append((ids[i].as_py(), text))
        n_chars += len(text or "")
    if batch:
        yield batch
