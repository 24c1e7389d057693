"""The task `tasks.embed`: what Python programs call, and what a worker does with a message.

Any package may import it. Its body imports `workers` when it runs, and only then.
"""

from collections.abc import Sequence
from typing import Any

from celery import Task
from celery.result import AsyncResult

from tasks.admission import accept_mode, accept_together, gathered, require_broker
from tasks.celery import app
from tasks.documents import parse_documents, parse_options, refuse_oversize
from tasks.errors import DocumentsFailed, RequestError
from tasks.messages import HEADER, TASK_NAME, Document, Options
from tasks.results import SplitResult, Summary
from tasks.settings import get_settings
from tasks.submission import Slice, arguments_repr, new_job_id, slice_job

_WORKFLOW = ("link", "link_error", "chain", "chord", "group_id")


class EmbedTask(Task):  # type: ignore[type-arg]
    """`delay` and `apply_async` take a text, a document `{text, id?, metadata?}` or a list.

    More than 64 documents become several messages with one result over all; inside a chain, group
    or chord they stay one message, since Celery counts each of its messages there.
    Raises QueueFull, BrokerDown, InvalidDocument, InvalidRequest, RequestTooLarge, ModelMismatch.
    """

    abstract = True

    def apply_async(  # type: ignore[override]  # options pass through
        self,
        args: Sequence[Any] | None = None,
        kwargs: dict[str, Any] | None = None,
        task_id: str | None = None,
        **options: Any,
    ) -> Any:
        if self.app.conf.task_always_eager or options.get("retries"):
            return super().apply_async(tuple(args or ()), kwargs, task_id=task_id, **options)
        documents, choice = self._parse(*(args or ()), **(kwargs or {}))
        split = not any(options.get(name) for name in _WORKFLOW)
        slices = slice_job(task_id or new_job_id(), documents, split=split)
        mode = accept_mode(self.app)
        if mode == "limited":
            refuse_oversize([size for part in slices for size in part.sizes], get_settings())
        require_broker()
        if len(slices) == 1:
            return self._send(slices[0], choice, options)
        with gathered() as submissions:
            results = [self._send(part, choice, options) for part in slices]
        accept_together(submissions, mode)
        return SplitResult(slices[0].place["job"], results, app=self.app)

    def _parse(
        self, documents: object, collection: object = None, on_long: object = None
    ) -> tuple[list[Document], Options]:
        settings = get_settings()
        return parse_documents(documents, settings), parse_options(collection, on_long, settings)

    def _send(self, part: Slice, choice: Options, options: dict[str, Any]) -> AsyncResult[Summary]:
        headers = {**(options.get("headers") or {}), HEADER: part.place}
        result: AsyncResult[Summary] = super().apply_async(
            (part.documents,),
            {"collection": choice.collection, "on_long": str(choice.on_long)},
            task_id=part.task_id,
            **{
                **options,
                "headers": headers,
                "argsrepr": arguments_repr(len(part.documents)),
                "kwargsrepr": "{}",
            },
        )
        return result


@app.task(
    bind=True,
    base=EmbedTask,
    name=TASK_NAME,
    throws=(DocumentsFailed, RequestError),
    Request="workers.request:EmbedRequest",
    Strategy="workers.batching:strategy",
)
def embed(
    self: Any,
    documents: Any,
    collection: str | None = None,
    on_long: str | None = None,
) -> Summary:
    """Embed documents into a collection: claim, embed, settle. Returns what became of them.

    The message is acknowledged when this returns or fails, which it only does once every document
    is settled; while the store or the ledger is away the message goes back to the queue.
    """
    from workers.batch import take_result
    from workers.execution import execute, execute_eagerly, read_delivery

    request = self.request
    result = take_result(request.id)
    if result is None:
        place = getattr(request, HEADER, None)
        delivery = read_delivery(request.id, place, documents, collection, on_long)
        if request.is_eager or request.called_directly:
            return execute_eagerly(delivery)
        (result,) = execute([delivery])
    if isinstance(result, Exception):
        raise result
    return result
