"""The verb `embedmill up`; only `compose.cli` imports it."""

import shlex
import sys
from collections.abc import Mapping
from typing import Any

from compose.errors import Interrupted
from compose.interruption import EXIT_INTERRUPTED, interruption_by_signals
from compose.output import Output
from compose.services import Options, list_exports
from compose.stack import Stack
from tasks.settings import settings_for
from tasks.urls import redact


def run(options: Options) -> None:
    """Until Ctrl-C or SIGTERM; exits with 130 when that comes before all is ready.

    Raises SettingsError, or StackError when it cannot go on.
    """
    output = Output(sys.stdout)
    settings = settings_for(options.data_dir)
    if settings.file:
        output.say(f"settings: {settings.file}, and the environment, which wins over it")
    with interruption_by_signals() as interruption:
        try:
            with Stack(
                options, settings=settings, output=output, interruption=interruption
            ) as stack:
                output.block(greet(stack.entries, list_exports(stack.plan)))
                stack.wait()
                output.say("stopping: what runs is finished first; once more to hurry")
        except Interrupted:
            output.say("stopped before everything was ready")
            sys.exit(EXIT_INTERRUPTED)


def greet(entries: dict[str, Mapping[str, Any]], exports: Mapping[str, str]) -> str:
    """The last lines of a start: where everything is, and how to stop it."""
    urls = {
        name: redact(entries[name]["url"]) for name in reversed(entries) if "url" in entries[name]
    }
    if "web" in urls:
        urls = {"web": urls["web"], "docs": f"{urls['web']}/docs"} | urls
    if flower := entries.get("flower"):
        urls["flower"] += f"    user {flower['user']}, password {flower['password']}"
    lines = [f"  {name:<8}{url}" for name, url in urls.items()]
    if exports:
        words = " ".join(f"{name}={shlex.quote(value)}" for name, value in exports.items())
        lines.append(f"  Not the usual ports; in another terminal first:\n  export {words}")
    return "\n".join(["", "Ready.", *lines, "  Ctrl-C finishes what runs, then stops it all.", ""])
