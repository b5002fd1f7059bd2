"""Whole-file operations on the warehouse, the same for a local folder and S3: atomic write, read, list, delete."""

import contextlib
import datetime as dt
import os
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pyarrow.fs import FileSelector, FileSystem, FileType
from pyiceberg.io.pyarrow import PyArrowFileIO


@dataclass(frozen=True)
class StoredFile:
    """A file of the warehouse.

    Attributes:
        location: URI, as table metadata names it.
        size: Bytes.
        modified: Time of the last write, by the store's clock, UTC.
    """

    location: str
    size: int
    modified: dt.datetime


COPY_BYTES = 8 << 20

_FILESYSTEMS: dict[tuple[object, ...], FileSystem] = {}


class WarehouseFileIO(PyArrowFileIO):
    """pyarrow's own access to folders and S3, with one client for a process.

    pyiceberg makes a new file access, and with it a new S3 client and connections, each time a table is opened.
    """

    def _initialize_fs(self, scheme: str, netloc: str | None = None) -> FileSystem:
        settings = tuple(sorted((k, v) for k, v in self.properties.items() if k.startswith("s3.")))
        key = (os.getpid(), scheme, netloc, settings)
        if key not in _FILESYSTEMS:
            _FILESYSTEMS[key] = super()._initialize_fs(scheme, netloc)
        return _FILESYSTEMS[key]


def write_whole(io: PyArrowFileIO, location: str, data: bytes) -> None:
    """Writes a file so that readers see the old one or the new one, never half of it.

    A local file is written aside, synced and renamed; an object is one put, which S3 makes visible whole.
    """
    if not location.startswith("file:"):
        with io.new_output(location).create(overwrite=True) as stream:
            stream.write(data)
        return
    target = Path(io.parse_location(location)[2])
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
    with scratch.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    scratch.replace(target)


def read_whole(io: PyArrowFileIO, location: str) -> bytes | None:
    """Returns a file's bytes, None where there is none."""
    try:
        with io.new_input(location).open() as stream:
            return bytes(stream.read())
    except FileNotFoundError:
        return None


def copy_file_in(io: PyArrowFileIO, source: Path, location: str) -> None:
    """Copies a local file of any size to a URI; a local target appears whole or not at all."""
    if location.startswith("file:"):
        target = Path(io.parse_location(location)[2])
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
        shutil.copyfile(source, scratch)
        scratch.replace(target)
        return
    with source.open("rb") as reader, io.new_output(location).create(overwrite=True) as writer:
        while block := reader.read(COPY_BYTES):
            writer.write(block)


def copy_file_out(io: PyArrowFileIO, location: str, target: Path) -> None:
    """Copies a file from a URI to a local path."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with io.new_input(location).open() as reader, target.open("wb") as writer:
        while block := reader.read(COPY_BYTES):
            writer.write(block)


def list_files(io: PyArrowFileIO, folder: str) -> Iterator[StoredFile]:
    """Yields every file below a folder's URI, in no fixed order; nothing where the folder does not exist."""
    filesystem, path = open_location(io, folder.rstrip("/"))
    prefix = folder.rstrip("/")[: -len(path)]
    for info in filesystem.get_file_info(FileSelector(path, recursive=True, allow_not_found=True)):
        if info.type == FileType.File:
            modified = dt.datetime.fromtimestamp((info.mtime_ns or 0) / 1e9, dt.UTC)
            yield StoredFile(prefix + info.path, info.size, modified)


def file_size(io: PyArrowFileIO, location: str) -> int | None:
    """Returns a file's bytes, None where there is none."""
    filesystem, path = open_location(io, location)
    info = filesystem.get_file_info(path)
    return int(info.size) if info.type == FileType.File else None


def delete_file(io: PyArrowFileIO, location: str) -> None:
    """Deletes a file; one that is gone already is no fault."""
    with contextlib.suppress(FileNotFoundError):
        io.delete(location)


def open_location(io: PyArrowFileIO, location: str) -> tuple[FileSystem, str]:
    """Returns the filesystem of a URI and the path inside it."""
    scheme, netloc, path = io.parse_location(location, io.properties)
    return io.fs_by_scheme(scheme, netloc), path
