"""Fencing: an increasing number for each (recipe, crawl), so that an old run cannot overwrite a newer one's result."""

from pyiceberg.table import Table, Transaction

from corpusmill.errors import SupersededError
from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.lakehouse.shards import RunToken
from corpusmill.lakehouse.transactions import stage_empty_snapshot, transact

EPOCHS = "ops.epochs"
EPOCH_PROPERTY = "corpusmill.epoch."


def take_epoch(lake: Lakehouse, recipe: str, crawl: str, run_id: str) -> int:
    """Returns the next epoch of a recipe and crawl, 1 or higher, and makes this run its holder.

    Rivals get different numbers: the epoch is taken by compare-and-set, with an empty snapshot in the same
    transaction, because a transaction that sets only properties would not be refused to the slower of two.

    Args:
        lake: The lakehouse.
        recipe: Recipe name.
        crawl: Crawl id.
        run_id: The run that takes over.
    """

    def change(table: Table, transaction: Transaction) -> int:
        epoch = _read(table, recipe, crawl)[0] + 1
        prefix = f"{EPOCH_PROPERTY}{recipe}/{crawl}"
        stage_empty_snapshot(transaction, {"corpusmill.stage": "plan", "corpusmill.run-id": run_id})
        transaction.set_properties({prefix: str(epoch), f"{prefix}.run": run_id})
        return epoch

    return transact(lake, EPOCHS, change)[0]


def current_epoch(lake: Lakehouse, recipe: str, crawl: str) -> tuple[int, str]:
    """Returns the newest epoch of a recipe and crawl and the run that holds it; (0, "") before the first run."""
    return _read(lake.load(EPOCHS), recipe, crawl)


def check_epoch(lake: Lakehouse, token: RunToken) -> None:
    """Raises a SupersededError that names the newer run, where one took over this recipe and crawl."""
    epoch, run_id = current_epoch(lake, token.recipe, token.crawl)
    if epoch > token.epoch:
        raise SupersededError(
            f"run {token.run_id!r} (epoch {token.epoch}) of recipe {token.recipe!r}, crawl {token.crawl!r} was "
            f"superseded by run {run_id!r} (epoch {epoch}); let that one finish, or start a new run"
        )


def _read(table: Table, recipe: str, crawl: str) -> tuple[int, str]:
    properties = table.metadata.properties
    prefix = f"{EPOCH_PROPERTY}{recipe}/{crawl}"
    return int(properties.get(prefix, "0")), properties.get(f"{prefix}.run", "")
