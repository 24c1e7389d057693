"""How many texts an API key may send in a minute: counted in Redis, exact over all web processes.

Any package may import it. A key's count goes by itself once it has drained.
"""

from typing import Any

from tasks.errors import RateExceeded, RequestTooLarge
from tasks.ledger import Call, Script
from tasks.settings import Settings

CHARGE = Script("charge")


def charge(name: str, texts: int, per_minute: int, settings: Settings) -> Call[None]:
    """Count texts of the API key of that name.

    A minute's texts may come at once, and then as many as have drained since.
    Raises RateExceeded, RequestTooLarge for more than ever fit, BrokerDown.
    """
    if texts > per_minute:
        raise RequestTooLarge(
            f"{texts} texts in one request, this API key may send {per_minute} a minute: "
            "send several requests",
            code="too_many_documents",
        )

    def read(reply: Any) -> None:
        if wait_s := int(reply):
            detail = f"this API key may send {per_minute} texts a minute"
            raise RateExceeded(detail, retry_after_s=wait_s)

    return Call(CHARGE, [_key(name)], [texts, per_minute], read, settings.broker_url)


def give_back(name: str, texts: int, per_minute: int, settings: Settings) -> Call[int]:
    """Texts that were counted and then not taken in count no more. Raises BrokerDown."""
    return Call(CHARGE, [_key(name)], [-texts, per_minute], int, settings.broker_url)


def _key(name: str) -> str:
    return f"embedmill:rate:{name}"
