"""`python -m compose.qdrant`: the local Qdrant server alone."""

import argparse
from pathlib import Path

from compose.qdrant.server import FLUSH_INTERVAL_S, serve


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m compose.qdrant", description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True, help="where collections are kept")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=6333, help="0 takes a free one (%(default)s)")
    parser.add_argument(
        "--flush-interval-s",
        type=float,
        default=FLUSH_INTERVAL_S,
        help="seconds between flushes of what was written (%(default)s)",
    )
    options = parser.parse_args()
    serve(options.data_dir, options.host, options.port, flush_interval_s=options.flush_interval_s)


if __name__ == "__main__":
    main()
