"""Where the vector store is, and what is needed to get in: all that `EMBED_QDRANT_URL` says.

    https://:KEY@host:6333/?ssl_ca_certs=/etc/ssl/own-ca.pem

Used by `workers` and `compose`. Errors of what is made here are translated by who uses it.
"""

import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote, urlsplit, urlunsplit

import httpx

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class QdrantAddress:
    """`url` is without credentials: libraries put it into their errors."""

    url: str
    api_key: str | None = field(default=None, repr=False)
    ca_file: str | None = None

    def connect(self, timeout_s: int) -> "QdrantClient":
        """Qdrant's own client. Nothing is sent yet."""
        from qdrant_client import QdrantClient

        return QdrantClient(
            url=self.url,
            api_key=self.api_key,
            timeout=timeout_s,
            # it would be a request, and a warning, before the first retry
            check_compatibility=False,
            verify=self._trust(),
        )

    def open_http(self, timeout_s: float) -> httpx.Client:
        """A plain client, which costs a process far less memory."""
        headers = {"api-key": self.api_key} if self.api_key else None
        return httpx.Client(
            base_url=self.url, headers=headers, verify=self._trust(), timeout=timeout_s
        )

    def _trust(self) -> ssl.SSLContext | bool:
        return ssl.create_default_context(cafile=self.ca_file) if self.ca_file else True


def read_address(url: str) -> QdrantAddress:
    """What a URL that the settings have checked says."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    netloc = f"{host}:{parts.port or PORTS[parts.scheme]}"
    key = parts.password or parts.username
    return QdrantAddress(
        url=urlunsplit((parts.scheme, netloc, parts.path.rstrip("/"), "", "")),
        api_key=unquote(key) if key else None,
        ca_file=parse_qs(parts.query).get("ssl_ca_certs", [None])[0],
    )
