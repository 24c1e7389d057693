"""How much is measured: the full run, and the quick one that ends in about three minutes."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scale:
    """Texts and rounds of each part. Beside sides that are slow, ours gets fewer texts as well;
    whole requests for each of two children, or one of them would have nothing to do."""

    name: str
    raw_texts: int
    raw_rounds: int
    slow_texts: int
    slow_rounds: int
    stock_texts: int
    stock_rounds: int
    singles: int
    query_backlog: int
    query_rounds: int
    accept_s: float
    accept_rounds: int
    backlog: int
    small_backlogs: int
    pss_children: tuple[int, ...]
    pss_texts: int
    """For each child, before it is weighed."""
    profile_texts: int
    extra_texts: int
    extra_rounds: int
    extras: bool
    limit_s: float
    """Of a comparison's rounds; for machines that are slower or busy."""


FULL = Scale(
    name="full",
    raw_texts=10_000,  # all there are
    raw_rounds=5,
    slow_texts=640,
    slow_rounds=3,
    stock_texts=256,
    stock_rounds=3,
    singles=500,
    query_backlog=20_000,
    query_rounds=3,
    accept_s=3.0,
    accept_rounds=7,
    backlog=200_000,
    small_backlogs=15,
    pss_children=(1, 2, 3),
    pss_texts=256,
    profile_texts=10_000,
    extra_texts=640,
    extra_rounds=3,
    extras=True,
    limit_s=240.0,
)
QUICK = Scale(
    name="quick",
    raw_texts=256,
    raw_rounds=1,
    slow_texts=128,
    slow_rounds=1,
    stock_texts=64,
    stock_rounds=1,
    singles=40,
    query_backlog=2_000,
    query_rounds=1,
    accept_s=1.0,
    accept_rounds=3,
    backlog=10_000,
    small_backlogs=5,
    pss_children=(1, 2),
    pss_texts=64,
    profile_texts=256,
    extra_texts=128,
    extra_rounds=1,
    extras=False,
    limit_s=20.0,
)
