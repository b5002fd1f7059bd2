"""The scored rows of a crawl as shards of a selection: one input file at a time, only the columns that are needed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from corpusmill.batches import Column
from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.pruning.config import SelectionConfig
from corpusmill.pruning.selection import Rows, columns_read, rows_of
from corpusmill.runner.inputs import without
from corpusmill.runner.plan import RunPlan
from corpusmill.runner.stage_tables import input_table


@dataclass
class ScoreShards:
    """Reads a crawl's scores again for each pass of a selection; memory is bounded by one input file.

    Attributes:
        score_keys: Score keys that were seen so far.
        n_rows: Rows that the last whole pass read.
    """

    lake: Lakehouse
    plan: RunPlan
    config: SelectionConfig
    files: Sequence[str]
    duplicates: Column | None = None

    def __post_init__(self) -> None:
        self.score_keys: set[str] = set()
        self.n_rows = 0

    def __call__(self) -> Iterator[Rows]:
        """Yields the rows of each input file, less the given duplicates."""
        table, partition = input_table(self.lake, self.plan, "score")
        self.n_rows = 0
        for _, scores in table.iter_groups(partition, groups=self.files, columns=list(columns_read(self.config))):
            rows = scores if self.duplicates is None else without(scores, self.duplicates)
            self.score_keys.update(str(key) for key in rows["score_key"].unique().to_pylist())
            self.n_rows += rows.num_rows
            yield rows_of(rows, self.config)
