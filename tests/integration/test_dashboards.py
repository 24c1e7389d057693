"""Every query of the dashboard and the alerts asks for what a running web really answers."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tasks.settings import get_settings
from tests.redis_server import RedisServer
from tests.web_server import local_web
from workers.publishing import Publisher
from workers.timings import Timings

COMPOSE = Path(__file__).parents[2] / "compose"
SELECTOR = re.compile(r"\b(embedmill_\w+)(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)\s*(=~|=|!=|!~)\s*"([^"]*)"')
GROUPING = re.compile(r"\b(?:by|without)\s*\(([^)]*)\)")
OF_PROMETHEUS = {"instance", "job"}
"""Labels that a scrape adds."""


@dataclass(frozen=True, slots=True)
class Sample:
    name: str
    labels: dict[str, str]


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((COMPOSE / "grafana" / "dashboard.json").read_bytes())
    return found


def alerts() -> list[dict[str, Any]]:
    content = yaml.safe_load((COMPOSE / "prometheus" / "alerts.yaml").read_bytes())
    return [rule for group in content["groups"] for rule in group["rules"]]


def queries() -> Iterator[str]:
    for panel in dashboard()["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))
    yield from (rule["expr"] for rule in alerts())


@pytest.fixture(scope="module")
def scraped(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """What Prometheus would store of a web whose worker has done a pass."""
    redis_server.client.flushdb()
    env = {"EMBED_BROKER_URL": redis_server.url, "EMBED_MODEL": "fake"}
    with local_web(tmp_path_factory.mktemp("web"), env) as web:
        publisher = Publisher(get_settings(), "worker@host")
        publisher.add(Timings(texts=3, queue_waits_s=[0.1]))
        publisher.start()
        answer = httpx.get(f"{web.url}/metrics")
        publisher.stop()
    families = text_string_to_metric_families(answer.text)
    return [Sample(found.name, found.labels) for family in families for found in family.samples]


def matches(sample: Sample, name: str, matchers: str) -> bool:
    return sample.name == name and all(
        label in OF_PROMETHEUS or _matches(sample.labels.get(label, ""), operator, value)
        for label, operator, value in MATCHER.findall(matchers)
    )


def _matches(found: str, operator: str, value: str) -> bool:
    equal = found == value if operator in {"=", "!="} else bool(re.fullmatch(value, found))
    return equal != operator.startswith("!")


@pytest.mark.parametrize("query", sorted(set(queries())))
def test_a_query_finds_what_it_asks_for(query: str, scraped: list[Sample]) -> None:
    selectors = SELECTOR.findall(query)
    assert selectors
    known = set(OF_PROMETHEUS)
    for name, matchers in selectors:
        found = [sample for sample in scraped if matches(sample, name, matchers)]
        assert found, f"{name} {matchers}"
        known.update(label for sample in found for label in sample.labels)
    for labels in GROUPING.findall(query):
        assert {label.strip() for label in labels.split(",")} <= known


@pytest.mark.parametrize("query", sorted(set(queries())))
def test_a_query_takes_rates_of_counters_only(query: str) -> None:
    counters = ("_total", "_bucket", "_sum", "_count")
    rated = re.findall(r"\b(?:rate|increase)\((embedmill_\w+)", query)
    assert all(name.endswith(counters) for name in rated)
    assert query.count("(") == query.count(")")
    for name, _ in SELECTOR.findall(query):
        assert name in rated or not name.endswith(counters)


def test_every_metric_is_shown_or_watched(scraped: list[Sample]) -> None:
    asked = {name for query in queries() for name, _ in SELECTOR.findall(query)}
    bases = {re.sub(r"_(bucket|sum|count)$", "", name) for name in asked}
    families = {re.sub(r"_(bucket|sum|count)$", "", sample.name) for sample in scraped}
    unseen = {"embedmill_dead_letters_bytes", "embedmill_points_total"}
    unseen |= {"embedmill_truncated_texts_total", "embedmill_unchanged_texts_total"}
    assert families - bases == unseen


def test_names_say_their_units(scraped: list[Sample]) -> None:
    units = ("seconds", "bytes", "texts", "tokens", "messages", "points", "requests", "calls")
    for sample in scraped:
        if sample.name.endswith("_total"):
            counted = sample.name.removesuffix("_total")
            assert counted.endswith((*units, "dead_letters")), sample.name
        assert sample.labels.keys() <= {"stage", "le", "worker", "pid"}


def test_each_alert_says_what_it_means() -> None:
    for rule in alerts():
        assert rule["alert"].startswith("Embedmill")
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert {"summary", "description"} <= rule["annotations"].keys()
