"""The search for the best settings, on simulated machines: near the best, and quick to leave."""

import math
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compose.tuning.judging import Judgement, Noise, Verdict, judge
from compose.tuning.points import Axis, Point, Space, space_of
from compose.tuning.search import Search


class Machine:
    """Texts a second by a smooth surface with one summit, and noise of `spread` between rounds."""

    steepness = 0.12

    def __init__(self, space: Space, summit: dict[Axis, float], spread: float, seed: int) -> None:
        self.space, self.summit, self.spread = space, summit, spread
        self.random = Random(seed)
        self.noise = Noise()
        self.rounds = 0

    def rate(self, point: Point) -> float:
        steps = [
            math.log2(self.space.value(axis, point)) - math.log2(best)
            for axis, best in self.summit.items()
        ]
        return 100 * math.exp(-self.steepness * sum(step**2 for step in steps))

    def measure(self, point: Point) -> float:
        self.rounds += 1
        return self.rate(point) * math.exp(self.random.gauss(0, self.spread))

    def compare(self, axis: Axis, challenger: Point, incumbent: Point) -> Judgement:
        ratios: list[float] = []
        while True:
            ratios.append(self.measure(challenger) / self.measure(incumbent))
            judgement = judge(ratios, self.noise)
            if judgement.verdict is not Verdict.UNSURE or len(ratios) == 6:
                self.noise.learn(ratios)
                return judgement


def grid(space: Space) -> list[Point]:
    tokens = space.line(Axis.BATCH_TOKENS, space.default)
    return [other for point in tokens for other in space.line(Axis.CONCURRENCY, point)]


@settings(deadline=None)
@given(
    cores=st.sampled_from([1, 2, 4, 8, 16, 64]),
    children=st.floats(1, 64),
    tokens=st.floats(64, 8192),
    seed=st.integers(0, 10_000),
)
def test_it_comes_near_the_best_of_a_grid(
    cores: int, children: float, tokens: float, seed: int
) -> None:
    space = space_of(cores, 0, 512)
    summit = {Axis.CONCURRENCY: children, Axis.BATCH_TOKENS: tokens}
    machine = Machine(space, summit, spread=0.01, seed=seed)
    best = Search(space, machine.compare).run()
    assert machine.rate(best) >= 0.93 * max(map(machine.rate, grid(space)))


def test_a_noisy_machine_costs_more_rounds_but_not_the_result() -> None:
    space = space_of(2, 0, 512)
    summit = {Axis.CONCURRENCY: 2.0, Axis.BATCH_TOKENS: 1400.0}
    shares, rounds = [], []
    for seed in range(30):
        machine = Machine(space, summit, spread=0.05, seed=seed)
        best = Search(space, machine.compare).run()
        shares.append(machine.rate(best) / max(map(machine.rate, grid(space))))
        rounds.append(machine.rounds)
    assert sorted(shares)[3] >= 0.95
    assert max(rounds) <= 6 * 2 * 16


@settings(deadline=None)
@given(seed=st.integers(0, 10_000))
def test_where_nothing_matters_the_default_stays(seed: int) -> None:
    space = space_of(4, 0, 512)
    machine = Machine(space, {}, spread=0.0, seed=seed)
    assert Search(space, machine.compare).run() == space.default


def test_what_lies_beyond_a_bad_point_is_not_measured() -> None:
    space = space_of(8, 0, 512)
    machine = Machine(space, {Axis.CONCURRENCY: 8.0}, spread=0.001, seed=1)
    search = Search(space, machine.compare)
    search.run()
    tried = {c.challenger.concurrency for c in search.comparisons if c.axis is Axis.CONCURRENCY}
    assert tried == {4, 16}
    assert all(c.judgement.pairs <= 2 for c in search.comparisons if c.challenger.concurrency != 8)


def test_an_error_ends_the_search_and_leaves_what_is_known() -> None:
    space = space_of(2, 0, 512)
    machine = Machine(space, {Axis.CONCURRENCY: 8.0}, spread=0.001, seed=1)

    def compare(axis: Axis, challenger: Point, incumbent: Point) -> Judgement:
        if axis is not Axis.CONCURRENCY:
            raise TimeoutError
        return machine.compare(axis, challenger, incumbent)

    search = Search(space, compare)
    with pytest.raises(TimeoutError):
        search.run()
    assert search.best.concurrency == 8
    assert not search.complete
    assert search.steps_left >= 2


def test_no_comparison_is_made_twice() -> None:
    space = space_of(4, 0, 512)
    summit = {Axis.CONCURRENCY: 1.0, Axis.BATCH_TOKENS: 4096.0, Axis.PREFETCH: 256.0}
    search = Search(space, Machine(space, summit, spread=0.02, seed=3).compare)
    search.run()
    pairs = [frozenset((c.challenger, c.incumbent)) for c in search.comparisons]
    assert len(pairs) == len(set(pairs))


def test_what_was_far_behind_once_is_not_tried_again() -> None:
    space = space_of(2, 0, 512)
    summit = {Axis.CONCURRENCY: 2.0, Axis.BATCH_TOKENS: 2048.0}
    machine = Machine(space, summit, spread=0.001, seed=1)
    machine.steepness = 0.5
    search = Search(space, machine.compare)
    search.run()
    values = [(c.axis, space.value(c.axis, c.challenger)) for c in search.comparisons]
    assert search.best.batch_tokens == 2048
    assert values.count((Axis.CONCURRENCY, 4)) == values.count((Axis.CONCURRENCY, 1)) == 1


def test_prefetch_is_tried_last_and_makes_nothing_begin_anew() -> None:
    space = space_of(2, 0, 512)
    machine = Machine(space, {Axis.PREFETCH: 256.0}, spread=0.001, seed=1)
    search = Search(space, machine.compare)
    search.run()
    axes = [c.axis for c in search.comparisons]
    assert search.best.prefetch == 256
    assert axes == sorted(axes, key=list(Axis).index)


@settings(deadline=None)
@given(cores=st.integers(1, 256), gpus=st.integers(0, 8))
def test_every_line_holds_the_point_it_goes_through(cores: int, gpus: int) -> None:
    space = space_of(cores, gpus, 512)
    for axis in Axis:
        line = space.line(axis, space.default)
        assert space.default in line
        values = [space.value(axis, point) for point in line]
        assert values == sorted(set(values))


def test_children_are_bounded_by_cores_and_gpus() -> None:
    assert space_of(2, 0, 512).children == (1, 2, 4, 8)
    assert space_of(6, 0, 512).children == (1, 2, 4, 6, 8, 16)
    assert space_of(16, 2, 512).children == (2, 4, 8)
    assert space_of(8, 0, 512, forks=False).default.concurrency == 1
    assert space_of(8, 2, 512).default.concurrency == 2


def test_threads_stay_within_the_cores() -> None:
    space = space_of(8, 0, 512)
    assert [p.threads for p in space.line(Axis.THREADS, Point(2))] == [1, 2, None]
    assert space.line(Axis.THREADS, Point(8)) == [Point(8)]
    assert Point(4) in space.line(Axis.CONCURRENCY, Point(2, threads=1))


def test_a_point_says_what_differs_from_the_default() -> None:
    changes = Point(4, threads=None, batch_tokens=256).changes(Point(2))
    assert changes == {
        "EMBED_CONCURRENCY": "4",
        "EMBED_THREADS": "",
        "EMBED_BATCH_TOKENS": "256",
        "EMBED_PREFETCH_MULTIPLIER": "",
    }


def test_one_pair_may_condemn_but_not_praise() -> None:
    assert judge([0.5], Noise()).verdict is Verdict.WORSE
    assert judge([2.0], Noise()).verdict is Verdict.UNSURE
    assert judge([2.0, 1.9], Noise()).verdict is Verdict.BETTER


def test_the_same_rates_are_equal_and_the_simpler_stays() -> None:
    noise = Noise()
    noise.learn([1.0] * 20)
    assert judge([1.002, 0.998], noise).verdict is Verdict.EQUAL
    assert judge([1.0, 1.2], Noise()).verdict is Verdict.UNSURE


def test_wide_scatter_is_never_sure() -> None:
    ratios = [1.5, 0.75, 1.4, 0.8, 1.3, 0.9]
    assert judge(ratios, Noise()).verdict is Verdict.UNSURE
    assert judge([1.0, 1.06, 0.98], Noise()).verdict is Verdict.UNSURE


def test_equals_are_told_early() -> None:
    """Most comparisons near the summit are between equals; each pair costs many seconds."""
    random, pairs = Random(5), []
    for _ in range(200):
        noise, ratios = Noise(), list[float]()
        noise.learn([math.exp(random.gauss(0, 0.03)) for _ in range(8)])
        judgement = Judgement(Verdict.UNSURE)
        while judgement.verdict is Verdict.UNSURE and len(ratios) < 6:
            ratios.append(math.exp(random.gauss(0, 0.03)))
            judgement = judge(ratios, noise)
        pairs.append(len(ratios))
    assert sum(pairs) / len(pairs) < 3.5


def test_noise_is_learnt_from_what_was_compared() -> None:
    calm, rough = Noise(), Noise()
    calm.learn([1.0, 1.001, 0.999, 1.0])
    rough.learn([0.8, 1.2, 1.0, 1.3])
    assert calm.spread < Noise().spread < rough.spread
    assert judge([1.1, 1.1], calm).low > judge([1.1, 1.1], rough).low


def test_no_pairs_are_no_judgement() -> None:
    with pytest.raises(ValueError, match="no pairs"):
        judge([], Noise())
