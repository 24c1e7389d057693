"""How a load test sends and counts: with stand-ins for the web, in virtual time."""

import asyncio
import io
import json
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice, pairwise, repeat
from random import Random
from statistics import mean, stdev

import numpy as np
import pytest
from rich.console import Console

from compose.errors import InputError, WebRefused
from compose.loadtest.arrivals import arrivals
from compose.loadtest.connection import Address, Reply, Unanswered
from compose.loadtest.lag import Generator
from compose.loadtest.latencies import Latencies
from compose.loadtest.loops import Load, closed_loop, open_loop
from compose.loadtest.report import Report
from compose.loadtest.settling import Settling
from compose.loadtest.tally import Tally
from compose.loadtest.texts import MIXES, Mix, built_in_texts, embed_target, file_texts
from tests.virtual_time import run_virtually, virtual_clock

ACCEPTED = Reply(202, None, b'{"job_id": "j"}')
FULL = Reply(429, 3.0, b'{"code": "queue_full"}')
SERVICE_S = 0.01

Answer = Callable[[float], Reply]


class StandIn:
    """A web that answers after `SERVICE_S`; within the stall only at the stall's end."""

    def __init__(self, answer: Answer = lambda _: ACCEPTED, stall: range = range(0)) -> None:
        self._answer, self._stall = answer, stall
        self.asked_s: list[float] = []

    async def ask(self, method: str, path: str, body: bytes = b"") -> Reply:
        now_s = virtual_clock()
        self.asked_s.append(now_s)
        stalled_s = self._stall.stop - now_s if int(now_s) in self._stall else 0.0
        await asyncio.sleep(stalled_s + SERVICE_S)
        return self._answer(now_s)


class Silent:
    """A web that is not there."""

    async def ask(self, method: str, path: str, body: bytes = b"") -> Reply:
        raise Unanswered("connection")


def load(duration_s: float = 10.0) -> Load:
    bodies: Iterator[bytes] = repeat(b"{}")
    return Load("/embed", bodies, duration_s, Tally(1), lambda *_: None, clock=virtual_clock)


def open_for(
    web: StandIn, rate: float, *, duration_s: float = 10.0, connections: int = 1000
) -> Tally:
    async def send() -> Tally:
        sending = load(duration_s)
        due = arrivals(rate, "constant", Random(1))
        await open_loop(sending, [web] * connections, due)
        return sending.tally

    return run_virtually(send())


def closed_for(web: StandIn | Silent, clients: int, *, duration_s: float = 10.0) -> Tally:
    async def send() -> Tally:
        sending = load(duration_s)
        await closed_loop(sending, [web] * clients)
        return sending.tally

    return run_virtually(send())


@pytest.mark.parametrize("spread", [0.5, 2.0])
def test_percentiles_are_those_of_all_observations(spread: float) -> None:
    observed = np.random.default_rng(7).lognormal(-4, spread, 20_000)
    latencies = Latencies()
    for seconds in observed:
        latencies.record(float(seconds))
    for percent in (1, 50, 90, 99, 99.5):
        known = np.percentile(observed, percent, method="inverted_cdf")
        assert latencies.percentile(percent) == pytest.approx(known, rel=0.006)
    assert latencies.percentile(100) == latencies.max_s == observed.max()


def test_percentiles_of_nothing_and_of_extremes() -> None:
    latencies = Latencies()
    assert latencies.percentile(99) == 0
    latencies.record(-1.0)
    latencies.record(1e9)
    assert latencies.percentile(50) < 1e-4
    assert latencies.max_s == 1e9


def test_constant_arrivals_are_evenly_spaced() -> None:
    assert list(islice(arrivals(4, "constant", Random()), 5)) == [0, 0.25, 0.5, 0.75, 1.0]


def test_poisson_arrivals_have_the_rate_and_its_spread() -> None:
    due = list(islice(arrivals(50, "poisson", Random(3)), 20_000))
    gaps = [later - earlier for earlier, later in pairwise(due)]
    assert mean(gaps) == pytest.approx(1 / 50, rel=0.03)
    assert stdev(gaps) == pytest.approx(1 / 50, rel=0.03)  # exponential: as large as the mean


def test_an_open_loop_feels_a_stall_that_a_closed_loop_hides() -> None:
    """Coordinated omission: of 10 s the web stalls for 3. Of arrivals at a rate three tenths meet
    the stall; of one client's requests a single one does."""
    rate, stall = 100, range(4, 7)
    felt = open_for(StandIn(stall=stall), rate)
    assert felt.answered == 1000
    assert felt.answer.percentile(69) == pytest.approx(SERVICE_S, rel=0.2)
    assert felt.answer.percentile(85) == pytest.approx(1.5, rel=0.02)
    assert felt.answer.percentile(99) == pytest.approx(2.9, rel=0.02)
    hidden = closed_for(StandIn(stall=stall), 1)
    assert hidden.answer.percentile(99.8) == pytest.approx(SERVICE_S, rel=0.02)
    assert hidden.answer.max_s == pytest.approx(3, rel=0.02)


def test_a_request_without_a_free_connection_counts_from_when_it_was_due() -> None:
    felt = open_for(StandIn(stall=range(4, 7)), 100, connections=10)
    assert felt.answered == 1000 - felt.unsent
    assert felt.late > 290
    assert felt.answer.percentile(85) > 1


def test_what_was_due_and_not_sent_before_the_end_counts_too() -> None:
    tally = open_for(StandIn(stall=range(5, 60)), 100, connections=50)
    assert tally.answered + tally.unsent == 1000
    assert 440 <= tally.unsent <= 460
    assert tally.answer.count == 1000
    assert tally.answer.percentile(75) > 2


def test_arrivals_do_not_wait_for_answers() -> None:
    web = StandIn(stall=range(1))
    open_for(web, 20, duration_s=1.0)
    assert web.asked_s == pytest.approx([number / 20 for number in range(20)])


@pytest.mark.parametrize("send", [lambda web: open_for(web, 1), lambda web: closed_for(web, 1)])
def test_a_refused_request_comes_again_when_it_was_told_to(
    send: Callable[[StandIn], Tally],
) -> None:
    web = StandIn(lambda at_s: FULL if at_s < 2 else ACCEPTED)
    tally = send(web)
    assert not tally.errors
    assert tally.refused in {1, 2}
    assert any(at_s == pytest.approx(3 + SERVICE_S) for at_s in web.asked_s)
    assert tally.acceptance.max_s == pytest.approx(3 + 2 * SERVICE_S)  # with its wait
    assert tally.answer.max_s == pytest.approx(SERVICE_S)  # without


def test_a_request_that_would_come_after_the_end_is_given_up() -> None:
    tally = closed_for(StandIn(lambda _: FULL), 2, duration_s=10)
    assert (tally.answered, tally.refused, tally.given_up) == (0, 8, 2)
    tally = open_for(StandIn(lambda _: FULL), 1, duration_s=10)
    assert tally.given_up == 10


def test_errors_are_counted_by_their_codes() -> None:
    answers = [
        Reply(422, None, b'{"code": "text_too_large"}'),
        Reply(400, None, b'{"error": {"code": "context_length_exceeded"}}'),
        Reply(502, None, b"<html>"),
    ]
    tally = closed_for(StandIn(lambda at_s: answers[int(at_s) % 3]), 1, duration_s=3)
    assert set(tally.errors) == {"text_too_large", "context_length_exceeded", "http_502"}
    assert not tally.answered


def test_a_web_that_is_away_is_not_called_without_end() -> None:
    tally = closed_for(Silent(), 1)
    assert tally.errors == Counter(connection=20)


def test_an_interruption_counts_what_was_not_answered() -> None:
    async def send() -> Tally:
        sending = load()
        due = arrivals(10, "constant", Random(1))
        web = StandIn(stall=range(1, 60))
        task = asyncio.create_task(open_loop(sending, [web] * 5, due))
        await asyncio.sleep(3)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return sending.tally

    tally = run_virtually(send())
    assert (tally.answered, tally.unfinished) == (10, 5)
    assert 14 <= tally.unsent <= 15
    assert tally.answer.max_s == pytest.approx(2, rel=0.1)


def job(state: str, settled_at: float | None, failed: int = 0) -> Reply:
    counts = dict.fromkeys(("done", "cancelled", "truncated", "points"), 0)
    row = {"job_id": "j", "state": state, "collection": "c", "model": "m", "accepted": 1}
    row |= counts | {"failed": failed, "rate_per_s": 0, "eta_s": None, "errors": []}
    return Reply(
        200, None, json.dumps(row | {"created_at": 100.0, "settled_at": settled_at}).encode()
    )


def test_jobs_are_followed_until_they_are_settled() -> None:
    def answer(now_s: float) -> Reply:
        if now_s < 1:
            return job("open", None)
        return job("done", 102.5, failed=1) if now_s < 2 else Reply(404, None, b"")

    async def follow() -> Settling:
        settling = Settling(StandIn(answer))
        following = asyncio.create_task(settling.follow())
        settling.add(ACCEPTED, 0.25)
        await settling.wait(60)
        await asyncio.sleep(2)
        settling.add(ACCEPTED, 0.25)
        await settling.wait(60)
        following.cancel()
        return settling

    settling = run_virtually(follow())
    assert settling.latencies.max_s == 2.75
    assert (settling.latencies.count, settling.failed_texts, settling.unknown) == (1, 1, 1)
    assert not settling.unsettled


def test_requests_carry_the_api_key_and_the_path_of_the_url() -> None:
    sent = Address("https://user@host:8443/mill/", "em_key").render("POST", "/embed", b"{}")
    head, _, body = sent.decode().partition("\r\n\r\n")
    assert head.startswith("POST /mill/embed HTTP/1.1\r\nHost: host:8443\r\n")
    assert {"Authorization: Bearer em_key", "Content-Length: 2"} <= set(head.split("\r\n"))
    assert body == "{}"
    with pytest.raises(WebRefused):
        Address("host:8080", None)


@pytest.mark.parametrize("mix", MIXES)
def test_built_in_texts_have_the_wished_length(mix: Mix) -> None:
    texts = built_in_texts(mix)
    assert len(texts) > 250
    assert all(len(text) in MIXES[mix] for text in texts)


def test_no_two_texts_are_the_same() -> None:
    bodies = embed_target("c").bodies(["a", "b"], 3, 10)
    first, second = (json.loads(body) for body in islice(bodies, 2))
    assert first == {"texts": ["a 10", "b 11", "a 12"], "collection": "c"}
    assert second["texts"] == ["b 13", "a 14", "b 15"]


def test_a_file_without_texts_is_refused() -> None:
    with pytest.raises(InputError, match="no text"):
        file_texts("/dev/null")


def report(tally: Tally, *, lateness_s: float = 0.001, cpu_share: float = 0.1) -> Report:
    lateness = Latencies()
    lateness.record(lateness_s)
    return Report({"rate": 5.0}, 10.0, tally, Generator(lateness, cpu_share), None)


def drawn(found: Report) -> str:
    stream = io.StringIO()
    Console(file=stream, width=200).print(found.draw())
    return stream.getvalue()


def test_the_report_says_when_it_measured_itself() -> None:
    tally = Tally(2, answered=10)
    assert "too slow" not in drawn(report(tally))
    assert "too slow" in drawn(report(tally, lateness_s=0.1))
    assert json.loads(report(tally, cpu_share=0.95).to_json())["generator"]["too_slow"]


def test_the_report_fails_on_errors_and_on_nothing() -> None:
    assert report(Tally(1, answered=10, refused=5)).succeeded
    assert not report(Tally(1, answered=10, errors=Counter(timeout=1))).succeeded
    assert not report(Tally(1, refused=5)).succeeded
    shown = drawn(report(Tally(2, answered=10, refused=5, unsent=3, errors=Counter(timeout=1))))
    for words in ("1.0 a second, 2.0 texts/s", "429s 5", "errors 1: timeout", "before the end 3"):
        assert words in shown
