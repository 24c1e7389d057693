"""How a worker starts and stops: checks, threads, models in children, presence.

`workers` installs it into the Celery app. The main process loads what its pool children can share,
and starts neither threads nor CUDA for it. A child has its model ready after the fork and tells the
main process, which stops the worker if it cannot.
"""

import logging
import os
import signal
from typing import Any

from billiard import pool
from billiard.process import current_process
from celery import Celery, bootsteps
from celery.concurrency.prefork import TaskPool as PreforkPool
from celery.signals import (
    after_setup_logger,
    after_setup_task_logger,
    worker_process_init,
    worker_process_shutdown,
    worker_shutting_down,
)
from celery.utils.sysinfo import cpu_budget  # type: ignore[attr-defined]  # new in 5.7
from celery.utils.timer2 import Timer
from celery.worker import state

from tasks import app
from tasks.admission import redis_client
from tasks.errors import EmbedError
from tasks.gpus import list_gpus
from tasks.logs import format_logs
from tasks.messages import QUERY_QUEUE
from tasks.queries import disown
from tasks.settings import Settings, get_settings, share_threads, show_gpu
from tasks.statistics import name_child
from workers import preflight
from workers.audit import Audit
from workers.departure import leave_when_redis_is_silent
from workers.draining import begin_draining
from workers.gpu_use import GpuMeter
from workers.heartbeat import INTERVAL_S, LOOK_INTERVAL_S, Heartbeat
from workers.lane import open_lane
from workers.pool import PatientAsynPool, PatientTaskPool
from workers.preload import preload
from workers.process import close_resources, open_resources
from workers.publishing import start_publishing, stop_publishing
from workers.queries import answer
from workers.reports import Report, ReportReader, send_report

logger = logging.getLogger(__name__)

EX_CONFIG = 78
"""A worker's exit code when its children cannot load the model (sysexits.h: wrong settings)."""

_main_pid: int | None = None


class Startup(bootsteps.StartStopStep):
    """The main process' part."""

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        _quieten_httpx()
        self._settings = get_settings()
        self._forks = issubclass(worker.pool_cls, PreforkPool)
        if self._forks:
            worker.pool_cls = PatientTaskPool
        children = count_children(worker, forks=self._forks)
        try:
            preflight.check_pool(self._settings, forks=self._forks)
            preflight.check_weights(self._settings)
            preflight.check_redis(self._settings)
            collections = preflight.check_store(self._settings)
        except EmbedError as error:
            raise SystemExit(f"embedmill: {error}") from error
        share_threads(count_threads(self._settings, children))
        self._announce_main_process()
        self._name = str(worker.hostname)
        gpus = GpuMeter(list_gpus(self._settings))
        self._heartbeat = Heartbeat(self._settings, self._name, children, gpus)
        self._heartbeat.record(collections)  # soon: others may make one meanwhile
        if self._forks:
            self._preload()
        self._audit = Audit(self._settings)
        self._reports = ReportReader(os.getpid())
        self._timer: Timer | None = None
        self._warned = False
        PatientAsynPool.tell_of_end = self._disown_queries

    def start(self, _parent: Any) -> None:
        """Pools without children have the model in this process; their tasks may block the hub."""
        self._audit.start()
        if self._forks:
            return
        try:
            card = open_resources(self._settings)
        except EmbedError as error:
            logger.critical("%s", error)
            raise SystemExit(EX_CONFIG) from error
        self._heartbeat.note(Report(os.getpid(), card))
        start_publishing(self._settings, self._name)
        self._timer = Timer()
        self._timer.call_repeatedly(INTERVAL_S, self._heartbeat.beat)

    def register_with_event_loop(self, worker: Any, hub: Any) -> None:
        """Celery calls it again after each reconnect, on a hub that has forgotten everything."""
        if self._forks:
            hub.add_reader(self._reports.fd, self._read_reports, worker)
            hub.call_repeatedly(INTERVAL_S, self._heartbeat.beat)
            hub.call_repeatedly(LOOK_INTERVAL_S, self._heartbeat.look)
            self._heartbeat.beat()

    def stop(self, _parent: Any) -> None:
        if self._timer is not None:
            self._timer.stop()
        self._audit.stop()
        self._heartbeat.retire()
        self._reports.close()
        stop_publishing()
        close_resources()

    def terminate(self, _parent: Any) -> None:
        self.stop(_parent)

    def _read_reports(self, worker: Any) -> None:
        for report in self._reports.read():
            if report.error:
                logger.critical("%s", report.error)
                worker.exitcode = EX_CONFIG
                # cold: a warm stop would wait for children that never come up
                state.should_terminate = True  # type: ignore[assignment]  # its initial value is None
                return
            self._heartbeat.note(report)
            self._warn_of_shared_gpu(report, worker)

    def _disown_queries(self, pid: int) -> None:
        """Of a child that has ended, and whose questions nobody will answer."""
        reason = "the process that worked on it was lost: ask again"
        try:
            lost = disown(redis_client(), name_child(self._name, pid), reason, self._settings)
        except EmbedError as error:
            logger.warning("nobody learns that queries of process %d are lost: %s", pid, error)
        else:
            if lost:
                logger.warning("%d queries are lost with process %d", lost, pid)

    def _warn_of_shared_gpu(self, report: Report, worker: Any) -> None:
        if self._warned or report.card is None or report.card.device != "cuda":
            return
        self._warned = True
        gpus = max(1, len(list_gpus(self._settings)))
        if worker.concurrency > gpus:
            logger.warning(
                "%d children share %d CUDA device%s, each with its own copy of the model; "
                "-c %d with a larger EMBED_BATCH_TOKENS is usually faster",
                worker.concurrency,
                gpus,
                "" if gpus == 1 else "s",
                gpus,
            )

    def _preload(self) -> None:
        try:
            preload(self._settings)
        # a broken file of weights raises what its library likes
        except Exception as error:
            logger.critical("%s", error if isinstance(error, EmbedError) else repr(error))
            raise SystemExit(EX_CONFIG) from error

    @staticmethod
    def _announce_main_process() -> None:
        global _main_pid  # noqa: PLW0603  # children find it after the fork
        _main_pid = os.getpid()


def install(app: Celery) -> None:
    """Make this app's workers start as described above; doing it again changes nothing."""
    app.steps["worker"].add(Startup)
    for signal_ in (after_setup_logger, after_setup_task_logger):
        signal_.connect(_format, weak=False, dispatch_uid="embedmill.logs")
    worker_process_init.connect(_load_model, weak=False, dispatch_uid="embedmill.load")
    worker_shutting_down.connect(_drain, weak=False, dispatch_uid="embedmill.drain")
    worker_process_shutdown.connect(_release, weak=False, dispatch_uid="embedmill.release")


def _format(logger: logging.Logger, **_: Any) -> None:
    # billiard's own logger has a handler of its own, and says which children were lost
    format_logs(get_settings(), logger, logging.getLogger("multiprocessing"))


def _drain(**_: Any) -> None:
    begin_draining()
    leave_when_redis_is_silent(get_settings())


def _end_soon() -> None:
    """A child whose last result nobody reads, because its main process is stopping, waits for
    billiard's 30 s by default; its message goes back in any case."""
    pool.GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT = 30


def _load_model(sender: str, **_: Any) -> None:
    """In a pool child of the worker `sender`, before it takes work."""
    if os.getpid() == _main_pid:
        return  # a pool without children: `Startup.start` loads it
    _end_soon()
    _quieten_httpx()
    main_pid = os.getppid()
    try:
        _choose_gpu()
        card = open_resources(get_settings())
    # Whatever it is: Celery would swallow it and give work to a child without a model.
    except Exception as error:
        sentence = str(error) if isinstance(error, EmbedError) else repr(error)
        send_report(main_pid, Report(os.getpid(), error=sentence))
        _wait_for_the_end()
    else:
        start_publishing(get_settings(), sender)
        if QUERY_QUEUE in app.amqp.queues.consume_from:
            open_lane(name_child(sender, os.getpid()), answer, get_settings())
        send_report(main_pid, Report(os.getpid(), card))


def _choose_gpu() -> None:
    """Children take turns on the GPUs, each seeing its own only."""
    gpus = list_gpus(get_settings())
    if gpus:
        index: int = getattr(current_process(), "index", 0)  # its place in the pool
        show_gpu(gpus[index % len(gpus)])


def _quieten_httpx() -> None:
    """It logs every request at INFO."""
    logging.getLogger("httpx").setLevel(logging.WARNING)


def _wait_for_the_end() -> None:
    """Until the main process has read the report: had this child exited, Celery would start the
    next one, which would fail likewise."""
    while True:
        signal.pause()


def _release(**_: Any) -> None:
    stop_publishing()
    close_resources()


def count_children(worker: Any, *, forks: bool) -> int:
    """How many processes compute at most: `-c` and `--autoscale` win over the settings."""
    if not forks:
        return 1
    most = str(worker.options.get("autoscale") or "").partition(",")[0]
    return int(most) if most.isdigit() else int(worker.concurrency)


def count_threads(settings: Settings, children: int) -> int:
    """Compute threads of each: together as many as this process may use cores."""
    return settings.threads or max(1, cpu_budget().count // children)
