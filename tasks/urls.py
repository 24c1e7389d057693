"""Addresses of servers: read, and shown without their credentials. Any package may import it."""

from urllib.parse import SplitResult, urlsplit, urlunsplit


def redact(url: str) -> str:
    """The URL without its credentials; nothing of one that cannot be read."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "***"
    host = parts.netloc.rpartition("@")[2]
    netloc = f"***@{host}" if host != parts.netloc else host
    return urlunsplit((parts.scheme, netloc, parts.path, "", ""))


def split_url(url: str) -> SplitResult:
    """Its parts, of which the port is a number, if there is one. Raises ValueError."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  # it is parsed when it is read
    except ValueError as error:
        raise ValueError(f"is not a URL: {error}") from error
    return parts
