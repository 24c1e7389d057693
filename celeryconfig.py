"""Celery's own setting names, with values from `tasks.settings`. Read by `tasks.celery` only.

What is not named here has Celery's default; each line that is here says why.
"""

import sys

import click
from kombu import Queue

from tasks.errors import SettingsError
from tasks.gpus import list_gpus
from tasks.messages import QUERY_QUEUE, QUERY_TASK_NAME, QUEUE
from tasks.settings import get_settings

try:
    _settings = get_settings()
except SettingsError as error:
    if click.get_current_context(silent=True) is None:
        raise
    sys.exit(f"embedmill: {error}")  # a command line: one sentence, no traceback

broker_url = _settings.broker_url
result_backend = _settings.broker_url

# Documents and queries; Flower learns from this what to count before any worker was seen.
task_default_queue = QUEUE
# Each bound to itself only: by default both would get what goes to the exchange of the first.
task_queues = [Queue(name, routing_key=name) for name in (QUEUE, QUERY_QUEUE)]

# Whatever app `-A` names, workers (and only they) start as `workers` says.
imports = ["workers"]
task_routes = {QUERY_TASK_NAME: {"queue": QUERY_QUEUE}}

# Messages are data, never code.
task_serializer = result_serializer = event_serializer = "json"
accept_content = result_accept_content = ["json"]

# A message is acknowledged when its documents are settled; a lost child gives it back.
task_acks_late = True
task_reject_on_worker_lost = True
task_track_started = True

# Results are short summaries; the ledger, not the result, says what became of a job.
result_expires = 3600

# Flower shows every task's life.
worker_send_task_events = True

# a GPU is filled by one child; None: a child a core
worker_concurrency = _settings.concurrency or len(list_gpus(_settings)) or None
worker_prefetch_multiplier = _settings.prefetch_multiplier
# The default of 4 s makes Celery kill children that load a model, for ever.
worker_proc_alive_timeout = _settings.load_timeout_s
# Finishing is cheaper than repeating: upserts are idempotent.
worker_cancel_long_running_tasks_on_connection_loss = False
# Celery's logging setup would double ours under `embedmill up`.
worker_redirect_stdouts = False

broker_connection_retry_on_startup = True
broker_connection_max_retries = None  # keep trying: the queue is on disk and comes back
# what dead workers held is looked for this often (every 10 s; Celery's default is every 100 s), and
# their leases end so much earlier that it runs again within the setting
_sweep_s = _settings.visibility_timeout_s / 6
broker_transport_options = {
    "visibility_timeout": _settings.visibility_timeout_s - _sweep_s,
    "unacked_restore_interval": _sweep_s,
    "unacked_restore_throttle": 1,
    # one list a queue: what `LLEN embed` counts is what waits
    "priority_steps": [0],
    "socket_keepalive": True,
    "socket_connect_timeout": 5,
    # what the main process waits for a silent Redis, and hears nothing else meanwhile
    "socket_timeout": 5,
    "health_check_interval": 10,
}
result_backend_transport_options = {"visibility_timeout": _settings.visibility_timeout_s}
visibility_timeout = _settings.visibility_timeout_s
