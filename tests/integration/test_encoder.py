"""The real model: the same vectors as SentenceTransformer.encode, chunks that it reads whole."""

import re

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer

from tasks.errors import ModelError
from tasks.settings import DEFAULT_MODEL, Settings
from tests.texts import SCRIPTS, varied_texts
from workers.encoder import Encoder, count_tokens, encode_texts
from workers.plan import plan
from workers.tokenization import TextTokenizer
from workers.torch_encoder import SentenceTransformerEncoder, load_encoder
from workers.weights import find_weights

pytestmark = pytest.mark.model


@pytest.fixture(scope="session")
def encoder() -> Encoder:
    return load_encoder(Settings(model=DEFAULT_MODEL, device="cpu"))


@pytest.fixture(scope="session")
def reference() -> SentenceTransformer:
    folder = find_weights(Settings(model=DEFAULT_MODEL))
    return SentenceTransformer(str(folder), device="cpu", local_files_only=True)


@pytest.mark.timeout(400)
def test_vectors_equal_those_of_sentence_transformers(
    encoder: Encoder, reference: SentenceTransformer
) -> None:
    texts = ["", " ", "\n\n", *varied_texts(197)]
    lengths = [min(n, encoder.card.max_tokens) for n in count_tokens(encoder, texts)]
    vectors = np.zeros((len(texts), encoder.card.dimension), dtype=np.float32)
    for batch in plan(lengths, 1024):
        vectors[batch] = encode_texts(encoder, [texts[index] for index in batch])
    expected = reference.encode(texts, show_progress_bar=False)
    cosines = (vectors * expected).sum(axis=1) / (
        np.linalg.norm(vectors, axis=1) * np.linalg.norm(expected, axis=1)
    )
    assert cosines.min() >= 0.9999


def test_the_card_says_what_the_model_is(encoder: Encoder) -> None:
    card = encoder.card
    assert (card.name, card.dimension, card.max_tokens, card.device) == (
        "sentence-transformers/all-MiniLM-L6-v2",
        384,
        256,
        "cpu",
    )


def test_tokens_are_counted_as_the_model_reads_them(
    encoder: Encoder, reference: SentenceTransformer
) -> None:
    texts = ["hello world", "", *(text for text in SCRIPTS.values())]
    read = [int(reference.preprocess([text])["attention_mask"].sum()) for text in texts]
    assert count_tokens(encoder, texts) == read
    assert count_tokens(encoder, ["word " * 1000]) == [1002]


def test_a_prompt_and_padding_on_the_left_are_kept(encoder: Encoder) -> None:
    backend = load_encoder(Settings(model=DEFAULT_MODEL, device="cpu")).model.tokenizer
    tokenizer = TextTokenizer(
        Tokenizer.from_str(backend.backend_tokenizer.to_str()),
        max_tokens=8,
        prompt="query: ",
        query_prompt="question: ",
        pad_id=7,
        pad_left=True,
    )
    short, long = tokenizer.tokenize(["hello", "word " * 50])
    assert short.ids == encoder.tokenize(["query: hello"])[0].ids
    ids, mask = tokenizer.pad([short, long])
    assert ids.shape == mask.shape == (2, 8)
    assert ids[0, :3].tolist() == [7, 7, 7]
    assert mask.sum(axis=1).tolist() == [5, 8]
    assert [ids[1, 0], ids[1, -1]] == [short.ids[0], short.ids[-1]]  # special tokens stay
    (query,) = tokenizer.tokenize_queries(["hello"])
    assert query.ids == encoder.tokenize(["question: hello"])[0].ids
    assert tokenizer.count_prompt_tokens(tokenizer.prompt) == 3
    with pytest.raises(ModelError, match="no room for a text"):
        TextTokenizer(Tokenizer.from_str(tokenizer.to_json()), max_tokens=2)


def test_queries_and_documents_have_the_models_prompts() -> None:
    folder = find_weights(Settings(model=DEFAULT_MODEL))
    prompts = {"query": "query: ", "passage": "a text that answers: "}
    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True, prompts=prompts)
    encoder = SentenceTransformerEncoder(model, "prompted", "its weights")
    text = "how are files opened?"
    query = encoder.encode(encoder.tokenize_queries([text]))
    document = encoder.encode(encoder.tokenize([text]))
    assert np.allclose(query, model.encode_query([text]), atol=1e-5)
    assert np.allclose(document, model.encode([text], prompt_name="passage"), atol=1e-5)
    assert not np.allclose(query, document, atol=1e-2)


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_chunk_is_read_whole_and_nothing_is_lost(encoder: Encoder, script: str) -> None:
    text = SCRIPTS[script] * 80
    chunks = encoder.split(text)
    assert max(count_tokens(encoder, chunks)) <= encoder.card.max_tokens
    assert re.sub(r"\s", "", "".join(chunks)) == re.sub(r"\s", "", text)


@pytest.mark.parametrize("script", ["Korean", "Chinese", "Japanese", "English"])
def test_chunks_end_where_sentences_end(encoder: Encoder, script: str) -> None:
    chunks = encoder.split(SCRIPTS[script] * 80)
    assert len(chunks) > 1
    assert all(chunk.endswith((".", "!", "?", "。", "！", "？")) for chunk in chunks)


def test_a_device_that_is_not_there_is_named() -> None:
    absent = "mps" if torch.cuda.is_available() else "cuda"
    with pytest.raises(ModelError, match=f"EMBED_DEVICE={absent}"):
        load_encoder(Settings(model=DEFAULT_MODEL, device=absent))


def test_a_folder_that_is_no_model_is_named(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("broken")
    (folder / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_encoder(Settings(model=str(folder), device="cpu"))
