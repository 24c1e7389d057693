"""Known advisories against what is installed: `make audit`, or `python -m tests.advisories`.

Ends with 1 for an advisory. Where the service cannot be asked it says that nothing was audited, and
ends with 0: a change does not fail for a network.
"""

import subprocess
import sys
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson

SERVICE = "https://pypi.org/pypi/pip/json"
"""What pip-audit asks for each package, of one that is always there."""
REACH_S = 10
AUDIT_S = 300


def main() -> int:
    reason = find_obstacle()
    if reason is None:
        with TemporaryDirectory() as folder:
            report, reason = audit(Path(folder) / "report.json")
    if reason is not None:
        print(f"NOT AUDITED: the advisory service could not be asked ({reason})", file=sys.stderr)
        return 0
    rows = orjson.loads(report)["dependencies"]
    known = [row for row in rows if "skip_reason" not in row]
    found = list(list_advisories(known))
    print(f"{len(known)} of {len(rows)} packages are known to the service", file=sys.stderr)
    if not known:
        print("NOT AUDITED: a mirror without advisories, perhaps", file=sys.stderr)
    elif not found:
        print("no known advisory")
    for line in found:
        print(line)
    return 1 if found else 0


def find_obstacle() -> str | None:
    """Why the service cannot be reached, if it cannot."""
    try:
        with urllib.request.urlopen(SERVICE, timeout=REACH_S):
            return None
    except (OSError, ValueError) as error:
        return str(error)


def audit(path: Path) -> tuple[bytes, str | None]:
    """pip-audit's report, or why there is none; its exit status tells these apart no better."""
    argv = [sys.executable, "-m", "pip_audit", "--skip-editable", "--progress-spinner", "off"]
    argv += ["--format", "json", "--output", str(path)]
    try:
        done = subprocess.run(argv, capture_output=True, timeout=AUDIT_S, check=False)
    except subprocess.TimeoutExpired:
        return b"", f"no end after {AUDIT_S} s"
    if not path.exists():
        return b"", done.stderr.decode(errors="replace").strip()[-500:] or "no report"
    return path.read_bytes(), None


def list_advisories(rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    """A line for each."""
    for row in rows:
        for advisory in row["vulns"]:
            mended = ", ".join(advisory["fix_versions"]) or "no version yet"
            yield f"{row['name']} {row['version']}: {advisory['id']}, mended in {mended}"


if __name__ == "__main__":
    sys.exit(main())
