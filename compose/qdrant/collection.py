"""One collection: the engine's shard behind operations that are already validated.

Imported by storage, which owns the directories, and routes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import qdrant_edge as engine
from qdrant_client.http import models

from compose.qdrant.errors import EngineError, NotFoundError
from compose.qdrant.identifiers import PointId
from compose.qdrant.points import Upsert
from compose.qdrant.records import format_id, format_record, format_scored
from compose.qdrant.requests import CollectionConfig, NearestQuery, Selection

DISTANCES = {
    models.Distance.COSINE: engine.Distance.Cosine,
    models.Distance.DOT: engine.Distance.Dot,
    models.Distance.EUCLID: engine.Distance.Euclid,
    models.Distance.MANHATTAN: engine.Distance.Manhattan,
}


@contextmanager
def engine_errors() -> Iterator[None]:
    """
    Raises:
        EngineError: for whatever the engine raised.
    """
    try:
        yield
    except Exception as error:  # the binding raises bare Exception, there is nothing narrower
        raise EngineError(f"Service internal error: {error}") from error


class Collection:
    """An open shard. It is never optimized: that would hold the GIL for seconds.

    Raises, from every method: EngineError.
    """

    def __init__(self, config: CollectionConfig, shard: engine.EdgeShard) -> None:
        self.config = config
        self.operations = 0
        self.dirty = True  # a loaded shard may have replayed its log
        self._shard = shard

    @classmethod
    def create(cls, folder: Path, config: CollectionConfig) -> "Collection":
        vectors = engine.EdgeVectorParams(config.size, DISTANCES[config.distance])
        with engine_errors():
            shard = engine.EdgeShard.create(str(folder), engine.EdgeConfig(vectors=vectors))
        return cls(config, shard)

    @classmethod
    def load(cls, folder: Path, config: CollectionConfig) -> "Collection":
        """Open a shard; the engine replays what it had logged and not flushed."""
        with engine_errors():
            return cls(config, engine.EdgeShard.load(str(folder)))

    def update(self, operation: engine.UpdateOperation) -> None:
        """Log and apply. When it returns, the operation survives the death of the process."""
        self.dirty = True
        with engine_errors():
            self._shard.update(operation)
        self.operations += 1

    def upsert(self, upsert: Upsert) -> None:
        self.update(
            engine.UpdateOperation.upsert_points(
                upsert.points, condition=upsert.update_filter, update_mode=upsert.update_mode
            )
        )

    def create_index(self, path: str) -> None:
        keyword = engine.PayloadSchemaType.Keyword
        self.update(engine.UpdateOperation.create_field_index(path, keyword))

    def retrieve(self, selection: Selection) -> list[dict[str, Any]]:
        """The points that exist, in no particular order, each once."""
        with engine_errors():
            records = self._shard.retrieve(
                selection.ids,
                with_payload=selection.with_payload,
                with_vector=selection.with_vector,
            )
        return [format_record(record) for record in records]

    def scroll(self, request: engine.ScrollRequest) -> dict[str, Any]:
        with engine_errors():
            records, following = self._shard.scroll(request)
        return {
            "points": [format_record(record) for record in records],
            "next_page_offset": None if following is None else format_id(following),
        }

    def count(self, request: engine.CountRequest) -> int:
        with engine_errors():
            return self._shard.count(request)

    def query(self, query: NearestQuery) -> list[dict[str, Any]]:
        """
        Raises:
            NotFoundError: the query names a point that is not there.
        """
        vector, query_filter = self._resolve(query)
        request = engine.QueryRequest(
            limit=query.limit,
            offset=query.offset,
            query=engine.Query.Nearest(vector),
            filter=query_filter,
            score_threshold=query.score_threshold,
            with_payload=query.with_payload,
            with_vector=query.with_vector,
        )
        with engine_errors():
            points = self._shard.query(request)
        return [format_scored(point) for point in points]

    def _resolve(self, query: NearestQuery) -> tuple[list[float], engine.Filter | None]:
        if isinstance(query.target, list):
            return query.target, query.filter
        without_itself = engine.Filter(
            must=None if query.filter is None else [query.filter],
            must_not=[engine.HasIdCondition({query.target})],
        )
        return self._find_vector(query.target), without_itself

    def _find_vector(self, point_id: PointId) -> list[float]:
        found = self.retrieve(Selection([point_id], with_payload=False, with_vector=True))
        if not found:
            raise NotFoundError(f"Not found: No point with id {point_id} found")
        vector: list[float] = found[0]["vector"].tolist()
        return vector

    def describe(self) -> dict[str, Any]:
        """Qdrant's CollectionInfo; its settings say that nothing is indexed or optimized."""
        with engine_errors():
            info = self._shard.info()
        return {
            "status": "green",
            "optimizer_status": "ok",
            "points_count": info.points_count,
            "indexed_vectors_count": info.indexed_vectors_count,
            "segments_count": info.segments_count,
            "config": self._describe_config(),
            "payload_schema": {
                path: {"data_type": "keyword", "points": index.points}
                for path, index in info.payload_schema.items()
            },
        }

    def _describe_config(self) -> dict[str, Any]:
        vectors = {"size": self.config.size, "distance": self.config.distance.value}
        config: dict[str, Any] = {
            "params": {
                "vectors": vectors,
                "shard_number": 1,
                "replication_factor": 1,
                "write_consistency_factor": 1,
                "on_disk_payload": True,
            },
            "hnsw_config": {"m": 0, "ef_construct": 0, "full_scan_threshold": 0},
            "optimizer_config": {
                "default_segment_number": 1,
                "indexing_threshold": 0,
                "flush_interval_sec": 5,
                "max_optimization_threads": 0,
            },
        }
        if self.config.metadata is not None:
            config["metadata"] = self.config.metadata
        return config

    def flush(self) -> None:
        """Write what changed to its place and let the engine cut its log."""
        if self.dirty:
            with engine_errors():
                self._shard.flush()
            self.dirty = False

    def close(self) -> None:
        """Flush and let go of the files; a closed collection has nothing left to flush."""
        self.dirty = False
        with engine_errors():
            self._shard.close()
