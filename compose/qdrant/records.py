"""Answers: the engine's records -> plain values for JSON.

Vectors and scores go out as numpy's float32, which orjson prints with the fewest digits that read
back the same, as Qdrant does (0.15, not 0.15000000596). Imported by collection.
"""

from typing import Any

import numpy as np
import qdrant_edge as engine


def format_record(record: engine.Record | engine.ScoredPoint) -> dict[str, Any]:
    """`id`, and `payload` and `vector` where they were asked for."""
    answer: dict[str, Any] = {"id": format_id(record.id)}
    if record.payload is not None:
        answer["payload"] = record.payload
    if record.vector is not None:
        answer["vector"] = np.asarray(record.vector, dtype=np.float32)
    return answer


def format_scored(point: engine.ScoredPoint) -> dict[str, Any]:
    return {
        **format_record(point),
        "version": point.version,
        "score": np.float32(point.score),
    }


def format_id(point_id: object) -> int | str:
    return point_id if isinstance(point_id, int) else str(point_id)
