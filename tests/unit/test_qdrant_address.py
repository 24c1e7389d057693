"""What EMBED_QDRANT_URL and EMBED_BROKER_URL say beside where a server is."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from tasks.settings import Settings
from workers.qdrant import QdrantAddress, read_address


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://127.0.0.1:6333", QdrantAddress("http://127.0.0.1:6333")),
        ("https://host", QdrantAddress("https://host:443")),
        ("http://[::1]:1/a/", QdrantAddress("http://[::1]:1/a")),
        ("https://:p%40ss@host:6333", QdrantAddress("https://host:6333", "p@ss")),
        ("https://key@host:6333/", QdrantAddress("https://host:6333", "key")),
        ("https://h:1/?ssl_ca_certs=/a%20b", QdrantAddress("https://h:1", ca_file="/a b")),
    ],
)
def test_a_url_is_taken_apart(url: str, address: QdrantAddress) -> None:
    assert read_address(url) == address


def test_a_key_goes_into_a_header_and_is_not_shown() -> None:
    address = read_address("https://:secret@host:6333")
    with address.open_http(1.0) as client:
        assert client.headers["api-key"] == "secret"
        assert "secret" not in str(client.base_url)
    assert "secret" not in repr(address)


def test_rediss_checks_certificates_unless_it_is_told_otherwise(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.touch()
    plain = Settings(broker_url="rediss://h:6379/0").broker_url
    assert plain == "rediss://h:6379/0?ssl_cert_reqs=required"
    own = Settings(broker_url=f"rediss://h/0?ssl_ca_certs={ca}").broker_url
    assert own == f"rediss://h/0?ssl_ca_certs={ca}&ssl_cert_reqs=required"
    kept = "rediss://h/0?ssl_cert_reqs=none"
    assert Settings(broker_url=kept).broker_url == kept


@pytest.mark.parametrize("name", ["broker_url", "qdrant_url"])
def test_an_authority_that_is_no_file_stops_the_start(name: str) -> None:
    url = {"broker_url": "rediss://u:pw@h/0", "qdrant_url": "https://:pw@h"}[name]
    with pytest.raises(ValidationError, match="ssl_ca_certs=/nowhere is no file"):
        Settings.model_validate({name: f"{url}?ssl_ca_certs=/nowhere"})
