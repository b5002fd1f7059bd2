"""Runs one stage on local files, without Airflow and without a lakehouse.

Ingestion reads WARC, WET, ARC or a paths manifest; the other stages read Parquet or JSON lines with a ``text`` column
(``doc_id``, ``url``, ``crawl``, ``warc_file`` and ``language`` are filled in where they are missing). The output folder
gets ``kept.parquet``, ``removed.parquet``, ``quarantine.parquet`` and ``report.json``.
"""

import gzip
import hashlib
import json
import time
import uuid
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from corpusmill.batches import replace_surrogates, rows_to_table, slices
from corpusmill.errors import ConfigError, PermanentDataError
from corpusmill.ingest.config import IngestConfig
from corpusmill.ingest.stage import IngestStage
from corpusmill.pruning.pack_stage import PackStage
from corpusmill.pruning.packing_config import PackingConfig
from corpusmill.report import StageReport
from corpusmill.runner.alone import STAGES, configured, scores_sequences
from corpusmill.runner.inputs import sequence_units
from corpusmill.runner.map_stage import BATCH_ROWS, checked, count_output, make_stage
from corpusmill.runner.models import pin_models_of, with_model
from corpusmill.runner.pack import count_packed
from corpusmill.schema import PAGES, QUARANTINE, SEQUENCES
from corpusmill.stage import QuarantinedInput, Stage, StageOutput

LOCAL = "local"
"""Crawl id of rows that name none."""
READ_COLUMNS = frozenset({"text", "doc_id", "url", "crawl", "warc_file", "language"})
"""Columns of an input file that stages read; it may have others."""


def run_on_files(
    stage: str, source: Path, output: Path, config: Mapping[str, Any], progress: Callable[[str], None]
) -> StageReport:
    """Runs a stage on a local file and writes its rows and report to a folder.

    Raises:
        ConfigError: The stage, a setting or the file's kind is not known.
        PermanentDataError: The file does not exist or lacks a ``text`` column.
    """
    if not source.exists():
        raise PermanentDataError(f"input={str(source)!r} does not exist; give a file")
    if stage == "ingest":
        schema, outputs = PAGES.schema, _ingested(source, config)
    elif stage == "pack":
        schema, outputs = SEQUENCES.schema, _packed(source, config)
    elif stage in STAGES:
        schema, outputs = STAGES[stage][1].schema, _mapped(stage, source, config, progress)
    else:
        known = sorted(["ingest", "pack", *STAGES])
        raise ConfigError(f"stage={stage!r} does not run on files; stages that do: {known}")
    return _write(stage, schema, outputs, source, output)


def _ingested(source: Path, config: Mapping[str, Any]) -> Iterator[StageOutput]:
    stage = IngestStage(IngestConfig.load(config))
    stage.setup()
    yield from stage.read_local(source)


def _packed(source: Path, config: Mapping[str, Any]) -> Iterator[StageOutput]:
    settings = PackingConfig.load(config)
    stage = PackStage(with_model(settings, pin_models_of(settings)))
    stage.setup()
    documents = read_documents(source)
    for name in sorted(str(f) for f in documents["warc_file"].unique().to_pylist()):
        rows = documents.filter(pc.equal(documents["warc_file"], pa.scalar(name, pa.large_string())))
        yield from stage.pack_file(str(rows["crawl"][0].as_py()), name, rows)


def _mapped(
    stage: str, source: Path, config: Mapping[str, Any], progress: Callable[[str], None]
) -> Iterator[StageOutput]:
    settings, _ = configured(stage, config)
    made = make_stage(stage, settings)
    made.setup()
    if scores_sequences(settings):
        yield from _in_batches(stage, made, read_sequences(source), progress)
        return
    table = read_documents(source)
    present = pc.is_valid(table["text"])
    if faults := [_no_text(str(doc_id)) for doc_id in table.filter(pc.invert(present))["doc_id"].to_pylist()]:
        empty = made.output_schema.empty_table()
        yield StageOutput(kept=empty, removed=empty, quarantine=faults)
    yield from _in_batches(stage, made, table.filter(present), progress)


def _in_batches(stage: str, made: Stage, table: pa.Table, progress: Callable[[str], None]) -> Iterator[StageOutput]:
    table = table.select(list(made.input_columns))
    done = 0
    for batch in slices(table, BATCH_ROWS):
        yield checked(made, batch)
        done += batch.num_rows
        progress(f"{stage}: {done} of {table.num_rows} documents")


def _no_text(doc_id: str) -> QuarantinedInput:
    message = "text=None, expected a string; leave the row out, or give it an empty text"
    return QuarantinedInput(where=doc_id, reason="error.null_text", message=message)


def read_sequences(source: Path) -> pa.Table:
    """Returns the packed sequences of a Parquet file that ``pack`` wrote, as scoring takes them.

    Raises:
        PermanentDataError: The file is damaged, or lacks a column of `schema.SEQUENCES`.
    """
    table = _parquet(source)
    if missing := sorted(set(SEQUENCES.schema.names) - set(table.schema.names)):
        raise PermanentDataError(
            f"{str(source)!r} has columns {table.schema.names} and lacks {missing}; expected packed sequences, as "
            "'corpusmill run pack' writes them to kept.parquet"
        )
    return sequence_units(table.select(SEQUENCES.schema.names))


def read_documents(source: Path) -> pa.Table:
    """Returns the documents of a Parquet or JSON lines file with every column that a stage may read.

    Raises:
        ConfigError: The file's name has another ending.
        PermanentDataError: The file is damaged, is empty, or has no column ``text`` of strings.
    """
    name = source.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        table = _parquet(source)
    elif name.endswith((".jsonl", ".json")):
        table = _json_lines(source)
    else:
        raise ConfigError(f"input={str(source)!r} is no .parquet, .jsonl or .jsonl.gz file")
    if "text" not in table.schema.names:
        raise PermanentDataError(f"{str(source)!r} has columns {table.schema.names}, expected one named 'text'")
    n = table.num_rows
    ids = [
        str(uuid.UUID(bytes=hashlib.blake2b(f"{source.name}\n{i}".encode(), digest_size=16).digest())) for i in range(n)
    ]
    defaults: dict[str, list[str | None]] = {
        "doc_id": list(ids),
        "url": [""] * n,
        "crawl": [LOCAL] * n,
        "warc_file": [source.name] * n,
        "language": [None] * n,
    }
    for column, values in defaults.items():
        if column not in table.schema.names:
            table = table.append_column(column, pa.array(values, pa.large_string()))
    wanted = ["text", *defaults]
    try:
        return table.select(wanted).cast(pa.schema([(c, pa.large_string()) for c in wanted]))
    except pa.ArrowException as error:
        raise PermanentDataError(
            f"{str(source)!r} holds columns that are no strings, expected {wanted}: {error}"
        ) from error


def _parquet(source: Path) -> pa.Table:
    try:
        return pq.read_table(source)
    except pa.ArrowException as error:
        raise PermanentDataError(f"{str(source)!r} is not a Parquet file: {error}") from error


def _json_lines(source: Path) -> pa.Table:
    """Returns the columns that stages read; parsed line by line, since pyarrow guesses types and has a line limit."""
    rows: list[dict[str, Any]] = []
    n_read = 0
    try:
        with gzip.open(source) if source.suffix == ".gz" else source.open("rb") as stream:
            for line in cast("IO[bytes]", stream):
                if line.strip():
                    rows.append(_row(json.loads(line)))
                n_read += 1
    except (ValueError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise PermanentDataError(
            f"{str(source)!r} cannot be read after line {n_read}: {error}; expected one JSON object with 'text' a line"
        ) from error
    if not rows:
        raise PermanentDataError(f"{str(source)!r} holds no document; expected one JSON object with 'text' a line")
    names = sorted({name for row in rows for name in row})
    return pa.table({name: pa.array([row.get(name) for row in rows], pa.large_string()) for name in names})


def _row(values: Any) -> dict[str, str | None]:
    """Returns the strings of one JSON line; a document id may be a number, whatever no stage reads may be anything."""
    if not isinstance(values, dict):
        raise ValueError(f"found {type(values).__name__}, expected an object")
    row: dict[str, str | None] = {}
    for name in READ_COLUMNS & values.keys():
        value = values[name]
        if name == "doc_id" and isinstance(value, int):
            value = str(value)
        if not isinstance(value, str | None):
            raise ValueError(f"{name}={value!r:.80}, expected a string")
        row[name] = None if value is None else replace_surrogates(value)[0]
    return row


def _write(stage: str, schema: pa.Schema, outputs: Iterator[StageOutput], source: Path, folder: Path) -> StageReport:
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    report = StageReport(stage=stage, crawl=LOCAL)
    count = count_packed if stage == "pack" else count_output
    quarantined: list[QuarantinedInput] = []
    paths = {name: folder / f"{name}.parquet.tmp" for name in ("kept", "removed")}
    with pq.ParquetWriter(paths["kept"], schema) as kept, pq.ParquetWriter(paths["removed"], schema) as removed:
        for output in outputs:
            count(report, output)
            kept.write_table(output.kept)
            removed.write_table(output.removed)
            quarantined += output.quarantine
    report.seconds = round(time.monotonic() - started, 3)
    for name, path in paths.items():
        path.replace(folder / f"{name}.parquet")
    rows = [
        {"recipe": LOCAL, "crawl": LOCAL, "stage": stage, "warc_file": source.name, **_quarantine_row(q)}
        for q in quarantined
    ]
    pq.write_table(rows_to_table(rows, QUARANTINE.schema), folder / "quarantine.parquet")
    (folder / "report.json").write_text(json.dumps(report.to_json(), indent=2) + "\n")
    return report


def _quarantine_row(q: QuarantinedInput) -> dict[str, Any]:
    return {
        "where": q.where,
        "url": q.url,
        "reason": q.reason,
        "message": q.message,
        "first_bytes": q.first_bytes,
        "n_bytes_lost": q.n_bytes_lost,
    }
