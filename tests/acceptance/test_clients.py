"""LangChain's and LlamaIndex's OpenAI classes against a real stack.

They are imported in the tests: collecting these should not take as long as they do.
"""

import numpy as np
import openai
import pytest
from pydantic import SecretStr

from tasks.settings import Settings
from tests.web_server import WebServer
from tests.worker import Worker
from workers.encoder import encode_texts
from workers.fake import FakeEncoder

pytestmark = pytest.mark.slow

TEXTS = [f"text number {number}" for number in range(70)]


def expected(*texts: str) -> np.ndarray:
    return encode_texts(FakeEncoder(Settings(model="fake")), texts)


def test_langchain_gets_vectors_of_documents_and_queries(web: WebServer, worker: Worker) -> None:
    from langchain_openai import OpenAIEmbeddings

    embeddings = OpenAIEmbeddings(
        model="fake",
        openai_api_base=f"{web.url}/v1",
        openai_api_key=SecretStr("none"),
        check_embedding_ctx_length=False,
    )
    assert np.allclose(embeddings.embed_documents(TEXTS), expected(*TEXTS))
    assert np.allclose(embeddings.embed_query("a query"), expected("a query")[0])


def test_langchains_tokens_are_refused_with_what_to_change(
    web: WebServer, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tiktoken
    from langchain_openai import OpenAIEmbeddings

    ranks = {bytes([byte]): byte for byte in range(256)}
    encoding = tiktoken.Encoding("bytes", pat_str=".", mergeable_ranks=ranks, special_tokens={})
    monkeypatch.setattr(tiktoken, "get_encoding", lambda _: encoding)  # OpenAI's is downloaded
    embeddings = OpenAIEmbeddings(
        model="fake",
        openai_api_base=f"{web.url}/v1",
        openai_api_key=SecretStr("none"),
        max_retries=0,
    )
    with pytest.raises(openai.BadRequestError, match="set check_embedding_ctx_length=False"):
        embeddings.embed_documents(["its default is to send tokens"])


def test_llamaindex_gets_vectors_of_documents_and_queries(web: WebServer, worker: Worker) -> None:
    from llama_index.embeddings.openai import OpenAIEmbedding

    embedding = OpenAIEmbedding(model_name="fake", api_base=f"{web.url}/v1", api_key="none")
    assert np.allclose(embedding.get_text_embedding_batch(TEXTS), expected(*TEXTS))
    assert np.allclose(embedding.get_query_embedding("a query"), expected("a query")[0])
