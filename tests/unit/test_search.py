"""Searching, without a store."""

from compose.search import for_queries
from tasks.settings import Settings


def test_a_query_is_encoded_by_one_thread_unless_told_otherwise() -> None:
    assert for_queries(Settings()).threads == 1
    assert for_queries(Settings(threads=3)).threads == 3
