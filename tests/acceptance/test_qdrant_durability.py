"""The local Qdrant server stores what it acknowledged and nothing else, whatever it is asked.

The engine logs an operation before it looks at it, so an invalid one that reached it would come
back from the log, or keep the collection from loading. Each seed draws valid and invalid requests,
kills the server with SIGKILL during one of them, starts it again and compares everything it holds
with what was acknowledged, then goes on from there. The request in flight may be there whole, or
not at all.
"""

import json
import math
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest

from tests.qdrant_server import LocalQdrant, local_qdrant

LIVES = 4  # of one data directory, each with a seed of its own and a kill at its end
LONGEST_DELAY_S = 0.004  # about what a request takes
NAMES = ["a", "b", "c"]
GROUPS = ["red", "green", "blue"]
IDS = [item for n in range(200) for item in (n, str(uuid.uuid5(uuid.NAMESPACE_URL, str(n))))]

PointId = int | str
Body = dict[str, Any]


@dataclass(frozen=True)
class Contents:
    """A collection: how it was made, and its points as (vector, payload) by id."""

    size: int
    metadata: Body
    indexes: frozenset[str]
    points: dict[PointId, tuple[list[float], Body]]


World = dict[str, Contents]


@dataclass(frozen=True)
class Step:
    """A request, and what the world is after it; an invalid one changes nothing."""

    method: str
    path: str
    body: Body | list[Any] | str | None
    change: Callable[[World], World] | None

    @property
    def content(self) -> bytes:
        text = self.body if isinstance(self.body, str) else json.dumps(self.body)
        return text.encode()

    def after(self, world: World) -> World:
        return self.change(world) if self.change else world


@dataclass(frozen=True)
class Dice:
    """Draws steps that are valid, or invalid in exactly one way, for the world as it is."""

    chance: Random
    world: World

    def draw(self) -> Step:
        if not self.world:
            return self.create()
        draws = [self.upsert] * 6 + [self.upsert_if_older] * 3 + [self.delete_ids] * 2
        draws += [self.delete_group, self.create_index, self.create, self.drop]
        draws += [self.break_upsert] * 6 + [self.ask_nonsense] * 3
        return self.chance.choice(draws)()

    def pick(self) -> tuple[str, Contents]:
        return self.chance.choice(sorted(self.world.items(), key=lambda item: item[0]))

    def point(self, size: int) -> Body:
        return {
            "id": self.chance.choice(IDS),
            "vector": [self.chance.randint(-99, 99) / 8 for _ in range(size)],
            "payload": {
                "version": self.chance.randint(0, 9),
                "group": self.chance.choice(GROUPS),
            },
        }

    def points(self, size: int) -> list[Body]:
        count = self.chance.choice([1, 2, 5, 100])
        drawn = [self.point(size) for _ in range(count)]
        return list({point["id"]: point for point in drawn}.values())

    def create(self) -> Step:
        name, size = self.chance.choice(NAMES), self.chance.randint(1, 40)
        metadata = {"made": self.chance.random()}
        body = {"vectors": {"size": size, "distance": "Dot"}, "metadata": metadata}
        made = Contents(size, metadata, frozenset(), {})
        taken = name in self.world
        return Step(
            "PUT", f"/collections/{name}", body, None if taken else lambda w: {**w, name: made}
        )

    def drop(self) -> Step:
        name, _ = self.pick()
        rest = {other: contents for other, contents in self.world.items() if other != name}
        return Step("DELETE", f"/collections/{name}", None, lambda _: rest)

    def create_index(self) -> Step:
        name, contents = self.pick()
        body = {"field_name": "group", "field_schema": "keyword"}
        indexed = replace(contents, indexes=contents.indexes | {"group"})
        return Step(
            "PUT", f"/collections/{name}/index?wait=true", body, lambda w: {**w, name: indexed}
        )

    def upsert(self) -> Step:
        name, contents = self.pick()
        points = self.points(contents.size)
        body: Body = {"points": points}
        if self.chance.random() < 0.3:
            columns = {"ids": "id", "vectors": "vector", "payloads": "payload"}
            body = {"batch": {k: [point[v] for point in points] for k, v in columns.items()}}
        return self.write("PUT", name, "", body, {**contents.points, **keyed(points)})

    def upsert_if_older(self) -> Step:
        name, contents = self.pick()
        points, version = self.points(contents.size), self.chance.randint(0, 9)
        mode = self.chance.choice(["upsert", "update_only"])
        older = {"must": [{"key": "version", "range": {"lt": version}}]}
        kept = dict(contents.points)
        for point_id, value in keyed(points).items():
            known = contents.points.get(point_id)
            if known[1]["version"] < version if known else mode == "upsert":
                kept[point_id] = value
        body = {"points": points, "update_filter": older, "update_mode": mode}
        return self.write("PUT", name, "", body, kept)

    def delete_ids(self) -> Step:
        name, contents = self.pick()
        ids = self.chance.sample(IDS, self.chance.choice([1, 20]))
        kept = {i: value for i, value in contents.points.items() if i not in ids}
        return self.write("POST", name, "/delete", {"points": ids}, kept)

    def delete_group(self) -> Step:
        name, contents = self.pick()
        group = self.chance.choice(GROUPS)
        body = {"filter": {"must": [{"key": "group", "match": {"value": group}}]}}
        kept = {i: value for i, value in contents.points.items() if value[1]["group"] != group}
        return self.write("POST", name, "/delete", body, kept)

    def write(
        self, method: str, name: str, path: str, body: Body, points: dict[PointId, Any]
    ) -> Step:
        written = replace(self.world[name], points=points)
        return Step(
            method,
            f"/collections/{name}/points{path}?wait=true",
            body,
            lambda world: {**world, name: written},
        )

    def break_upsert(self) -> Step:
        """Good points around one bad one."""
        name, contents = self.pick()
        points = self.points(contents.size)
        flaw = self.chance.choice(list_flaws(contents.size))
        bad = {**self.point(contents.size), **flaw}
        points.insert(self.chance.randint(0, len(points)), bad)
        return Step("PUT", f"/collections/{name}/points", {"points": points}, None)

    def ask_nonsense(self) -> Step:
        name, contents = self.pick()
        points = self.points(contents.size)
        method, path, body = self.chance.choice(list_nonsense(points))
        return Step(method, f"/collections/{name}{path}", body, None)


def keyed(points: list[Body]) -> dict[PointId, tuple[list[float], Body]]:
    return {point["id"]: (point["vector"], point["payload"]) for point in points}


def list_flaws(size: int) -> list[Body]:
    """What makes a point invalid, alone."""
    deep: Body = {}
    for _ in range(200):  # the engine would log this and never load again
        deep = {"a": deep}
    vectors: list[Any] = [
        [1.0] * (size + 1),
        [1.0] * (size - 1),
        *([*[1.0] * (size - 1), bad] for bad in (math.nan, math.inf, 1e39, "1", None, True, [1])),
        {"other": [1.0] * size},
        {"indices": [0], "values": [1.0]},
        None,
    ]
    ids = [-1, 2**64, 1.5, "abc", "", True, None, [1], {"num": 1}]
    payloads = [[], "text", 7, deep]
    return [
        *({"vector": vector} for vector in vectors),
        *({"id": item} for item in ids),
        *({"payload": payload} for payload in payloads),
        {"shard": 1},
        {"payload": {"version": math.nan, "group": "red"}},
    ]


def list_nonsense(points: list[Body]) -> list[tuple[str, str, Any]]:
    """Requests that are invalid as a whole, or that only a full Qdrant does."""
    good = {"points": points}
    bad_filters = [
        {"must": [{"key": "group"}]},
        {"must": [{"key": "gr[oup", "match": {"value": "red"}}]},
        {"must": [{"has_id": [-1]}]},
        {"must": [{"key": "version", "range": {"lt": math.nan}}]},
        {"must": [{"key": "version", "match": {"value": 2**70}}]},
        {"mus": []},
        {"must": [{"has_vector": ""}]},
        {"min_should": {"conditions": [], "min_count": 0}},
    ]
    return [
        *(("PUT", "/points", {**good, "update_filter": bad}) for bad in bad_filters),
        *(("POST", "/points/delete", {"filter": bad}) for bad in bad_filters),
        ("PUT", "/points", {"points": []}),
        ("PUT", "/points", {**good, "update_mode": "replace"}),
        ("PUT", "/points", {**good, "extra": 1}),
        ("PUT", "/points", {**good, "shard_key": "x"}),
        ("PUT", "/points?wait=perhaps", good),
        ("PUT", "/points", json.dumps(good)[:-2]),
        ("PUT", "/points", points),
        ("PUT", "/points", {"batch": {"ids": [1, 2], "vectors": [points[0]["vector"]]}}),
        ("POST", "/points/delete", {"points": []}),
        ("POST", "/points/delete", {"points": [1, "x"]}),
        ("POST", "/points/delete", {}),
        ("POST", "/points/payload", {"payload": {"a": 1}, "points": [1]}),
        ("PUT", "/index", {"field_name": "gr[oup", "field_schema": "keyword"}),
        ("PUT", "/index", {"field_name": "group", "field_schema": "geo"}),
        ("PATCH", "", {"metadata": {"made": 1}}),
        ("PUT", "x", {"vectors": {"size": 2, "distance": "Dot"}, "shard_number": 2}),
        ("PUT", "x", {"vectors": {"size": 0, "distance": "Dot"}}),
    ]


def ask_until_killed(server: LocalQdrant, chance: Random, world: World) -> tuple[World, World]:
    """The world as it was acknowledged, and as it is if the request in flight was applied."""
    killed_during = chance.randint(20, 150)
    killer = threading.Timer(chance.uniform(0, LONGEST_DELAY_S), server.process.kill)
    with httpx.Client(base_url=server.url, timeout=30) as http:
        for number in range(100_000):
            step = Dice(chance, world).draw()
            if number == killed_during:
                killer.start()
            try:
                answer = http.request(step.method, step.path, content=step.content)
            except httpx.TransportError:
                killer.join()
                return world, step.after(world)
            check_answer(step, answer)
            world = step.after(world)
    raise AssertionError("the server was not killed")


def check_answer(step: Step, answer: httpx.Response) -> None:
    expected = {200} if step.change else {400, 409, 501}
    assert answer.status_code in expected, (step, answer.text)


def read_world(server: LocalQdrant) -> World:
    with httpx.Client(base_url=server.url, timeout=30) as http:
        listed = http.get("/collections").raise_for_status().json()["result"]["collections"]
        return {item["name"]: read_contents(http, item["name"]) for item in listed}


def read_contents(http: httpx.Client, name: str) -> Contents:
    info = http.get(f"/collections/{name}").raise_for_status().json()["result"]
    everything = {"limit": len(IDS) + 1, "with_vector": True}
    found = http.post(f"/collections/{name}/points/scroll", json=everything).raise_for_status()
    points = found.json()["result"]["points"]
    for group in GROUPS:
        in_group = [point for point in points if point["payload"]["group"] == group]
        assert count_group(http, name, group) == len(in_group)
    return Contents(
        size=info["config"]["params"]["vectors"]["size"],
        metadata=info["config"]["metadata"],
        indexes=frozenset(info["payload_schema"]),
        points=keyed(points),
    )


def count_group(http: httpx.Client, name: str, group: str) -> int:
    body = {"filter": {"must": [{"key": "group", "match": {"value": group}}]}, "exact": True}
    answer = http.post(f"/collections/{name}/points/count", json=body).raise_for_status()
    number: int = answer.json()["result"]["count"]
    return number


@pytest.mark.slow
@pytest.mark.parametrize("first_seed", range(0, 20, LIVES), ids="seeds from {}".format)
def test_what_is_stored_after_a_kill_is_what_was_acknowledged(
    tmp_path: Path, first_seed: int
) -> None:
    possible: tuple[World, ...] = ({},)
    for seed in range(first_seed, first_seed + LIVES):
        chance = Random(seed)
        interval_s = chance.choice([0.01, 0.1, 5.0])
        with local_qdrant(tmp_path, flush_interval_s=interval_s) as server:
            stored = read_world(server)
            assert stored in possible, f"after seed {seed - 1}"
            possible = ask_until_killed(server, chance, stored)
    with local_qdrant(tmp_path) as server:
        assert read_world(server) in possible
