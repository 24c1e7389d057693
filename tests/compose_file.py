"""compose.yaml as Compose reads it: merged, and with its variables replaced."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
PATH = ROOT / "compose/compose.yaml"
SECRETS = {"REDIS_PASSWORD": "password123", "FLOWER_BASIC_AUTH": "user:password456"}

_VARIABLE = re.compile(r"\$(?:(\$)|\{(\w+)(?::([-?])([^}]*))?\})")


class Missing(Exception):
    """A variable that must be set is not."""


def read_services(environment: Mapping[str, str] = SECRETS) -> dict[str, dict[str, Any]]:
    """Services by name. Raises Missing."""

    def replace(found: re.Match[str]) -> str:
        dollar, name, operator, rest = found.groups()
        if dollar:
            return "$"
        if operator == "?" and not environment.get(name):
            raise Missing(name)
        return environment.get(name) or (rest if operator == "-" else "")

    def walk(value: Any) -> Any:
        if isinstance(value, str):
            return _VARIABLE.sub(replace, value)
        if isinstance(value, list):
            return [walk(item) for item in value]
        if isinstance(value, dict):
            return {name: walk(item) for name, item in value.items()}
        return value

    services: dict[str, dict[str, Any]] = walk(yaml.safe_load(PATH.read_text())["services"])
    return services
