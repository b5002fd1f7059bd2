"""The exception tree of corpusmill.

CorpusmillError
+-- ConfigError      a setting, recipe or argument is wrong            (Permanent)
+-- DataError        an input file, page or table row is not usable
+-- ProgramError     a refining program could not be parsed or executed (Permanent)
+-- ModelError       a model could not be loaded, run or trained
|   +-- CorruptModelError  a model's files are incomplete or damaged   (Permanent)
|   +-- DeviceError      the GPU failed or had no memory left          (Transient)
+-- DiskFullError    a file could not be written: no space left        (Transient)
+-- WriteRefusedError a file may not be written here                   (Permanent)
+-- LakehouseError   the catalog or the warehouse refused or failed
    +-- SupersededError   a newer run took over this recipe and crawl   (Permanent)
    +-- CommitConflict    another commit was first; try again           (Transient)

Two mixins say whether a retry can help: `Permanent` (fail at once) and `Transient` (retry with delay). An error that
carries neither is retried as the caller's policy says. Every message holds what was wrong, the value, what was
expected and what to do. All of them survive pickling, because tasks hand them between processes.
"""


class Permanent:
    """Mixin: a retry of the same work cannot succeed; a person must change something first."""


class Transient:
    """Mixin: the same work may succeed later; retry with a delay."""


class CorpusmillError(Exception):
    """Base of every error that corpusmill raises on purpose."""


class ConfigError(CorpusmillError, Permanent, ValueError):
    """A setting, recipe or argument is wrong; the message names it, its value and what is allowed."""


class DataError(CorpusmillError):
    """An input (file, record, page, table row) is not usable."""


class PermanentDataError(DataError, Permanent):
    """An input is not usable and will not be on a second reading."""


class TransientDataError(DataError, Transient):
    """An input could not be read now, for instance because a server is busy."""


class ProgramError(CorpusmillError, Permanent):
    """A refining program could not be parsed or executed."""


class ModelError(CorpusmillError):
    """A model could not be loaded, run or trained."""


class CorruptModelError(ModelError, Permanent):
    """A model's files are incomplete, damaged, or not in a form that is read here."""


class DeviceError(ModelError, Transient):
    """A GPU failed, was taken away or had no memory left while a model ran."""


class DiskFullError(CorpusmillError, Transient):
    """A file could not be written because a disk, a quota or a file size limit is used up."""


class WriteRefusedError(CorpusmillError, Permanent):
    """A file may not be written: a read-only file system, or a folder of somebody else."""


class LakehouseError(CorpusmillError):
    """The catalog or the warehouse refused or failed."""


class CommitConflict(LakehouseError, Transient):  # noqa: N818 - the field's word is "conflict"
    """Another commit was first and the retries of the commit loop were used up."""


class SupersededError(LakehouseError, Permanent):
    """A newer run took over this recipe and crawl; this run must not commit any more."""


class ValidationFailedError(CorpusmillError, Permanent):
    """A critical check failed; the message lists each failed expectation in words and numbers."""

    data_docs: str | None = None
    """First page of the Data Docs site that shows the failure; None where there is none, or after pickling."""


class WorkerDiedError(CorpusmillError, Transient):
    """A child process that does model work ended without a result (killed, out of memory, device lost)."""
