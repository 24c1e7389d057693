"""What a run of the benchmark has found so far, and the file it is written to."""

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import orjson
import psutil

PACKAGES = (
    *("torch", "sentence-transformers", "transformers", "tokenizers", "onnxruntime"),
    *("celery", "kombu", "redis", "fastapi", "uvicorn", "qdrant-client", "qdrant-edge-py"),
)


class BenchError(Exception):
    """A measure that cannot be taken, or a run whose result is wrong; the sentence says why."""


@dataclass(slots=True)
class Results:
    """Numbers by key; what is not there has its reason in `missing`."""

    machine: dict[str, Any] = field(default_factory=dict)
    measures: dict[str, float] = field(default_factory=dict)
    details: dict[str, dict[str, Any]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def record(self, key: str, value: float, details: Mapping[str, Any]) -> None:
        self.measures[key] = round(value, 4)
        self.details[key] = dict(details)

    def miss(self, key: str, reason: str) -> None:
        self.missing.setdefault(key, reason)

    def write(self, path: Path) -> None:
        """As JSON; an earlier file is replaced in one step."""
        found = {
            "machine": self.machine,
            "measures": self.measures,
            "missing": self.missing,
            "details": self.details,
        }
        fresh = path.with_suffix(".part")
        fresh.write_bytes(orjson.dumps(found, option=orjson.OPT_INDENT_2) + b"\n")
        fresh.replace(path)


def describe_machine() -> dict[str, Any]:
    """What the numbers depend on. Load is that before the start: others' work is in the numbers."""
    return {
        "cpu": _cpu_name(),
        "cores": count_cores(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 2),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
    }


def count_cores() -> int:
    """Those that this process may use."""
    return len(psutil.Process().cpu_affinity()) if psutil.LINUX else psutil.cpu_count() or 1


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
