"""The data directory: who holds it, which collections are in it, what survives a crash.

    DATA/.lock                             held by the one server that uses DATA
    DATA/collections/<uuid>/meta.json      written last: without it a folder is half-made
    DATA/collections/<uuid>/shard/         the engine's files

Imported by server and routes.
"""

import fcntl
import os
import re
import shutil
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pydantic import BaseModel, ValidationError
from qdrant_client.http import models

from compose.qdrant.bodies import describe
from compose.qdrant.collection import Collection
from compose.qdrant.errors import ConflictError, DataDirError, EngineError, NotFoundError
from compose.qdrant.identifiers import check_collection_name
from compose.qdrant.requests import CollectionConfig

FOLDER_NAME = re.compile(r"[0-9a-f]{32}")
META = "meta.json"
SHARD = "shard"


class Meta(BaseModel, extra="forbid", strict=True):
    """`meta.json`: what a collection is called and made with."""

    format: int = 1
    name: str
    size: int
    distance: models.Distance
    metadata: dict[str, object] | None


@dataclass(frozen=True, slots=True)
class StoredCollection:
    """A collection and the folder it lives in."""

    folder: Path
    collection: Collection


class Storage:
    """All collections of one data directory, held by an exclusive lock until `close`."""

    def __init__(self, data_dir: Path) -> None:
        """
        Raises:
            DataDirError: another server holds the directory, or a collection does not load.
        """
        self._root = data_dir / "collections"
        self._lock = lock_directory(data_dir)
        self._stored: dict[str, StoredCollection] = {}
        self._root.mkdir(exist_ok=True)
        for folder in sorted(self._root.iterdir()):
            if FOLDER_NAME.fullmatch(folder.name):
                self._load(folder)

    def _load(self, folder: Path) -> None:
        if not (folder / META).exists():  # killed while it was made or deleted
            shutil.rmtree(folder)
            return
        try:
            meta = Meta.model_validate_json((folder / META).read_bytes())
            config = CollectionConfig(meta.size, meta.distance, meta.metadata)
            collection = Collection.load(folder / SHARD, config)
        except (ValidationError, EngineError, OSError) as error:
            reason = describe(error) if isinstance(error, ValidationError) else error
            raise DataDirError(f"The collection in {folder} cannot be loaded: {reason}") from error
        self._stored[meta.name] = StoredCollection(folder, collection)

    @property
    def names(self) -> list[str]:
        return list(self._stored)

    @property
    def collections(self) -> list[Collection]:
        return [stored.collection for stored in self._stored.values()]

    def get(self, name: str) -> Collection:
        """
        Raises:
            NotFoundError: there is no such collection.
        """
        if name not in self._stored:
            raise NotFoundError(f"Not found: Collection `{name}` doesn't exist!")
        return self._stored[name].collection

    def create(self, name: str, config: CollectionConfig) -> None:
        """Make a collection that is on disk, whole, when this returns.

        Raises:
            MalformedError: Qdrant would not take the name.
            ConflictError: there is one of that name.
            EngineError: the engine could not make it; nothing is left of it.
        """
        check_collection_name(name)
        if name in self._stored:
            raise ConflictError(f"Wrong input: Collection `{name}` already exists!")
        folder = self._root / uuid.uuid4().hex
        meta = Meta(name=name, size=config.size, distance=config.distance, metadata=config.metadata)
        try:
            (folder / SHARD).mkdir(parents=True)
            collection = Collection.create(folder / SHARD, config)
            sync_tree(folder)
            write_durably(folder / META, meta.model_dump_json().encode())
            sync(self._root)
        except (EngineError, OSError) as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise EngineError(f"Service internal error: {error}") from error
        self._stored[name] = StoredCollection(folder, collection)

    def delete(self, name: str) -> bool:
        """Delete a collection; whether there was one. It is gone once its meta file is."""
        stored = self._stored.get(name)
        if stored is None:
            return False
        (stored.folder / META).unlink()
        sync(stored.folder)
        del self._stored[name]
        stored.collection.close()
        shutil.rmtree(stored.folder)
        return True

    def close(self) -> None:
        """Flush and close every collection, then let go of the directory."""
        for collection in self.collections:
            collection.close()
        self._stored.clear()
        self._lock.close()


def lock_directory(data_dir: Path) -> BinaryIO:
    """Take the exclusive lock of a data directory, which is made if missing.

    Raises:
        DataDirError: another server holds it, or it cannot be written.
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        lock = (data_dir / ".lock").open("wb")
    except OSError as error:
        raise DataDirError(f"The data directory {data_dir} cannot be used: {error}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise DataDirError(
            f"Another local Qdrant server is already using the data directory {data_dir}."
        ) from error
    return lock


def write_durably(path: Path, content: bytes) -> None:
    """Write a file so that after a crash it is there whole or not at all."""
    draft = path.with_suffix(".tmp")
    with draft.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)
    sync(path.parent)


def sync_tree(folder: Path) -> None:
    """Make every file below a folder survive the loss of power, before something names it."""
    for path in [folder, *folder.rglob("*")]:
        with suppress(FileNotFoundError):  # a thread of the engine renames the log it prepares
            sync(path)


def sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
