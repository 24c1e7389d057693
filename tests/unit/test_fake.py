"""The fake encoder behaves like a model, everywhere the same, and never touches torch."""

import subprocess
import sys

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tasks.messages import ModelCard
from tasks.settings import Settings
from workers.encoder import Encoder, build_encoder, count_tokens, encode_texts
from workers.fake import MAX_TOKENS, FakeEncoder

HELLO_WORLD = [-0.418475, -0.483304, -0.315408, 0.701294]


def fake(dimension: int = 384) -> Encoder:
    return build_encoder(Settings(model="fake", fake_dimension=dimension))


@given(st.lists(st.text(max_size=50), min_size=1, max_size=8))
def test_vectors_are_unit_float32_and_follow_from_the_text(texts: list[str]) -> None:
    vectors = encode_texts(fake(), texts)
    assert vectors.shape == (len(texts), 384)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    alone = np.vstack([encode_texts(fake(), [text]) for text in texts])
    assert np.array_equal(vectors, alone)


def test_different_texts_have_different_vectors() -> None:
    vectors = encode_texts(fake(), [f"text {number}" for number in range(100)])
    similar = vectors @ vectors.T - np.eye(100)
    assert similar.max() < 0.5


def test_the_vector_of_a_text_never_changes() -> None:
    known = encode_texts(fake(4), ["hello world"])[0]
    assert np.allclose(known, HELLO_WORLD, atol=1e-6)


def test_long_texts_are_truncated_like_a_model_does() -> None:
    text = " ".join(["word"] * (MAX_TOKENS + 50))
    assert count_tokens(fake(), [text]) == [MAX_TOKENS + 50]
    shorter = " ".join(["word"] * MAX_TOKENS)
    assert np.array_equal(encode_texts(fake(), [text]), encode_texts(fake(), [shorter]))


def test_the_card_has_the_dimension_of_the_settings() -> None:
    assert fake(7).card == ModelCard("fake", 7, MAX_TOKENS, "cpu")


def test_it_never_imports_torch() -> None:
    code = (
        "import sys; from tasks.settings import Settings; "
        "from workers.encoder import build_encoder, encode_texts; "
        "import workers.process, workers.store; "
        "encode_texts(build_encoder(Settings(model='fake')), ['a']); "
        "print([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_poison_kills_its_process_and_only_where_that_is_asked_for() -> None:
    assert len(encode_texts(fake(), [FakeEncoder.POISON])) == 1
    program = (
        "from tasks.settings import Settings; from workers.encoder import encode_texts;"
        "from workers.fake import FakeEncoder;"
        "fake = FakeEncoder(Settings(model='fake', fake_poison=True));"
        "encode_texts(fake, ['food']);"
        "encode_texts(fake, ['food', 'it says ' + FakeEncoder.POISON])"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -9
