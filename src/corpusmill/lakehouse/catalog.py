"""Opens the catalog, and creates it in one explicit step that workers never take."""

import contextlib
import fcntl
import json
import logging
import os
import random
import re
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import (
    CommitFailedException,
    NamespaceAlreadyExistsError,
    NoSuchTableError,
    TableAlreadyExistsError,
)
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.table import Table
from sqlalchemy import inspect
from sqlalchemy.exc import DatabaseError, DBAPIError, OperationalError, ProgrammingError

from corpusmill.build_schema import BUILD_TABLES
from corpusmill.errors import ConfigError, LakehouseError, Permanent, Transient
from corpusmill.lakehouse.settings import LakehouseSettings
from corpusmill.lakehouse.storage import WarehouseFileIO
from corpusmill.lakehouse.table import LOW_CARDINALITY_PROPERTY, SORT_PROPERTY, LakeTable
from corpusmill.schema import OPS_TABLES, PAGES, RECIPE_TABLES, TableSpec

log = logging.getLogger(__name__)

RAW = "raw"
OPS = "ops"
CATALOG_NAME = "corpusmill"
INIT_ATTEMPTS = 20
READ_ATTEMPTS = 5

TABLE_PROPERTIES = {
    "format-version": "2",
    "commit.retry.num-retries": "0",  # pyiceberg's own retry duplicates rows; `commit` has its own loop
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "20",
    "write.delete.mode": "copy-on-write",
    "write.parquet.compression-codec": "zstd",
    "write.parquet.compression-level": "3",
}
NO_STATISTICS = ("text", "programs", "operations", "report", "config", "message", "first_bytes", "output")
"""Columns whose minimum and maximum help no reader."""


class NotInitialisedError(LakehouseError, Permanent):
    """The lakehouse or a table of it was never created; `corpusmill init` creates it, workers never do."""


class LakehouseUnavailableError(LakehouseError, Transient):
    """The catalog database does not answer."""


class CatalogDamagedError(LakehouseError, Permanent):
    """The catalog's file is no database any more."""


class Lakehouse:
    """A catalog and its warehouse. Safe to use in a forked process: the connection is opened again there.

    Args:
        settings: Where both lie.
    """

    def __init__(self, settings: LakehouseSettings) -> None:
        self.settings = settings
        self._catalog: SqlCatalog | None = None
        self._io: WarehouseFileIO | None = None
        self._pid = os.getpid()

    def __repr__(self) -> str:
        return f"Lakehouse({self.settings.shown_catalog_uri!r}, {self.settings.warehouse!r})"

    def __enter__(self) -> "Lakehouse":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def io(self) -> WarehouseFileIO:
        """File access to the warehouse: pyarrow's own for folders and S3."""
        self._forget_other_process()
        if self._io is None:
            self._io = WarehouseFileIO(self.settings.catalog_properties())
        return self._io

    @property
    def catalog(self) -> SqlCatalog:
        """The open catalog.

        Raises:
            NotInitialisedError: There is no catalog yet.
            LakehouseUnavailableError: The database does not answer.
        """
        self._forget_other_process()
        path = self.settings.sqlite_path
        if path is not None and not path.exists():
            # looked at each time: an open connection would go on writing into a file that nobody finds again
            raise self._not_initialised("there is no catalog")
        if self._catalog is None:
            self._catalog = self._open(create=False)
        return self._catalog

    def init(self, recipes: Sequence[str]) -> None:
        """Creates the catalog, the namespaces and all tables that do not exist yet; the one step that creates anything.

        A table of an earlier version gets the columns that it lacks.

        Args:
            recipes: Recipe names; each gets a namespace of its own beside ``raw`` and ``ops``.

        Raises:
            ConfigError: A recipe's name cannot be a namespace.
            LakehouseError: Another process kept interfering.
        """
        for recipe in recipes:
            check_recipe_name(recipe)
        with self._init_lock():
            self._with_retries(lambda: self._create_all(recipes))
        log.info("lakehouse ready at %s for recipes %s", self.settings.warehouse, list(recipes))

    def is_initialised(self, recipe: str) -> bool:
        """Returns whether every table of a recipe and every shared one exists."""
        try:
            return all(self.catalog.table_exists(f"{namespace}.{spec.name}") for namespace, spec in _tables([recipe]))
        except NotInitialisedError:
            return False
        except (OperationalError, ProgrammingError):
            if self._has_catalog_tables():
                raise
            return False

    def create_table(self, identifier: str, spec: TableSpec) -> LakeTable:
        """Creates a table that is not one of the project's own, and its namespace; one that exists may get new columns.

        Args:
            identifier: Namespace and table, ``"mine.notes"``.
            spec: Its schema, partition, sort and dictionary columns.
        """

        def create() -> None:
            self._create_namespace(identifier.rpartition(".")[0])
            self._create_table(identifier, spec)

        self._with_retries(create)
        return self.table(identifier)

    def table(self, identifier: str) -> LakeTable:
        """Returns a table as it is now: one consistent view, which later commits do not change.

        Raises:
            NotInitialisedError: The table does not exist.
            LakehouseUnavailableError: The database does not answer.
        """
        return LakeTable(identifier, self.load(identifier))

    def load(self, identifier: str) -> Table:
        """Returns the pyiceberg table with fresh metadata; for the modules of this package only."""
        for attempt in range(READ_ATTEMPTS):
            try:
                return self.catalog.load_table(identifier)
            except NoSuchTableError as error:
                raise self._not_initialised(f"table {identifier!r} does not exist") from error
            except FileNotFoundError:
                # more commits than metadata versions are kept went by between reading the pointer and the file
                if attempt == READ_ATTEMPTS - 1:
                    raise
                time.sleep(random.uniform(0, 0.2))
            except (OperationalError, ProgrammingError) as error:
                if not self._has_catalog_tables():
                    raise self._not_initialised("the catalog has no tables") from error
                if attempt == READ_ATTEMPTS - 1:
                    raise self._unavailable(error) from error
                time.sleep(random.uniform(0, 0.5))
            except DatabaseError as error:
                raise self._damaged(error) from error
        raise AssertionError("unreachable")

    def close(self) -> None:
        """Closes the database connections; the object opens them again when used."""
        if self._catalog is not None and self._pid == os.getpid():
            self._catalog.close()
        self._catalog = None

    def _forget_other_process(self) -> None:
        if self._pid != os.getpid():
            self._pid, self._catalog, self._io = os.getpid(), None, None

    def _open(self, *, create: bool) -> SqlCatalog:
        properties = self.settings.catalog_properties() | {"init_catalog_tables": str(create).lower()}
        try:
            return SqlCatalog(CATALOG_NAME, **properties)
        except OperationalError as error:
            raise self._unavailable(error) from error
        except DatabaseError as error:
            raise self._damaged(error) from error

    def _has_catalog_tables(self) -> bool:
        try:
            return bool(inspect(self.catalog.engine).has_table("iceberg_tables"))
        except DBAPIError as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: DBAPIError) -> LakehouseUnavailableError:
        return LakehouseUnavailableError(
            f"catalog {self.settings.shown_catalog_uri!r} does not answer: {' '.join(str(error.orig).split())}; look "
            f"{self._where_to_look()}. Nothing half-done is visible to readers; a retry goes on from the last "
            "committed stage"
        )

    def _where_to_look(self) -> str:
        if self.settings.sqlite_path is None:
            return "whether the database server runs and can be reached from this worker"
        return "whether its disk is there and not full, and whether another process holds the file locked"

    def _damaged(self, error: DBAPIError) -> LakehouseError:
        """Returns what an error means that is not about a connection: a server's session may be lost, a file is not."""
        if self.settings.sqlite_path is None:
            return self._unavailable(error)
        return CatalogDamagedError(
            f"catalog {self.settings.shown_catalog_uri!r} is damaged: {error.orig}; restore it from a backup. The "
            f"tables' files under {self.settings.warehouse!r} are not touched by this"
        )

    def _not_initialised(self, what: str) -> NotInitialisedError:
        return NotInitialisedError(
            f"{what} in the lakehouse {self.settings.shown_catalog_uri!r} at {self.settings.warehouse!r}; "
            "create it once with: corpusmill init RECIPE. If it was there before, restore it from a backup instead: a "
            "new catalog knows none of the tables that the warehouse holds"
        )

    @contextlib.contextmanager
    def _init_lock(self) -> Iterator[None]:
        """Lets one process at a time initialise an embedded lakehouse; a database server is left to the retries."""
        path = self.settings.sqlite_path
        if path is None:
            yield
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_name(path.name + ".init-lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _with_retries(self, step: Any) -> None:
        """Runs a step that creates only what is missing, again where a rival created something at the same moment."""
        for attempt in range(INIT_ATTEMPTS):
            try:
                step()
                return
            except (DBAPIError, CommitFailedException, LakehouseUnavailableError) as error:
                if attempt == INIT_ATTEMPTS - 1:
                    raise LakehouseError(
                        f"could not initialise {self!r} in {INIT_ATTEMPTS} attempts: {error}"
                    ) from error
                time.sleep(random.uniform(0, min(1.0, 0.05 * 2 ** min(attempt, 5))))

    def _create_all(self, recipes: Sequence[str]) -> None:
        self.close()
        self._forget_other_process()
        self._catalog = self._open(create=True)
        for namespace in (RAW, OPS, *recipes):
            self._create_namespace(namespace)
        for namespace, spec in _tables(recipes):
            self._create_table(f"{namespace}.{spec.name}", spec)

    def _create_namespace(self, namespace: str) -> None:
        with contextlib.suppress(NamespaceAlreadyExistsError):
            if not self.catalog.namespace_exists(namespace):
                self.catalog.create_namespace(namespace)

    def _create_table(self, identifier: str, spec: TableSpec) -> None:
        if self.catalog.table_exists(identifier):
            self._add_columns(identifier, spec)
            return
        with contextlib.suppress(TableAlreadyExistsError):
            transaction = self.catalog.create_table_transaction(
                identifier, spec.schema, properties=table_properties(spec)
            )
            with transaction.update_spec() as update:
                for column in spec.partition:
                    update.add_identity(column)
            transaction.commit_transaction()

    def _add_columns(self, identifier: str, spec: TableSpec) -> None:
        """Gives a table of an earlier version the columns that it lacks; they are null in its rows.

        Only columns that may be null are added, nested ones too; nothing is renamed, removed or given another type.
        """
        table = self.load(identifier)
        held = schema_to_pyarrow(table.schema(), include_field_ids=False)
        wanted = pa.schema([f for f in spec.schema if f.nullable or f.name in held.names])
        if _field_paths(list(wanted)) <= _field_paths(list(held)):
            return
        with table.transaction() as transaction, transaction.update_schema() as update:
            update.union_by_name(wanted)
        log.info("%s has new columns; rows from before hold nulls in them", identifier)


def _field_paths(fields: "Sequence[pa.Field[Any]]", path: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
    """Returns the path of every field, through structs and lists of structs."""
    found = set()
    for field in fields:
        found.add((*path, field.name))
        inner = field.type
        if isinstance(inner, pa.ListType | pa.LargeListType):
            inner = inner.value_type
        if isinstance(inner, pa.StructType):
            found |= _field_paths([inner.field(i) for i in range(inner.num_fields)], (*path, field.name))
    return found


def check_recipe_name(recipe: str) -> None:
    """Raises a ConfigError where a recipe's name cannot be a namespace."""
    if recipe in (RAW, OPS) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,63}", recipe):
        raise ConfigError(
            f"recipe={recipe!r} cannot be a namespace; expected a letter, then letters, digits, '_' or '-', and "
            f"neither {RAW!r} nor {OPS!r}"
        )


def table_properties(spec: TableSpec) -> dict[str, str]:
    """Returns the Iceberg properties that a table of ours is created with."""
    metrics = {f"write.metadata.metrics.column.{c}": "none" for c in NO_STATISTICS if c in spec.schema.names}
    # whole values: the names of input files agree in far more than the 16 characters that are kept otherwise
    whole = {*spec.partition, *(c for c in ("warc_file", "doc_id") if c in spec.schema.names)}
    metrics |= {f"write.metadata.metrics.column.{c}": "full" for c in sorted(whole)}
    return {
        **TABLE_PROPERTIES,
        **metrics,
        SORT_PROPERTY: json.dumps(spec.sort),
        LOW_CARDINALITY_PROPERTY: json.dumps(spec.low_cardinality),
    }


def _tables(recipes: Sequence[str]) -> list[tuple[str, TableSpec]]:
    shared = [(RAW, PAGES), *((OPS, spec) for spec in (*OPS_TABLES, *BUILD_TABLES))]
    return shared + [(recipe, spec) for recipe in recipes for spec in RECIPE_TABLES]
