"""Benchmarks of this project, compared with common alternatives.

python -m bench --runs 5 --write docs/benchmarks.md
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench import (
    first_contact,
    first_sight,
    jobs,
    local_port,
    machine,
    many_runs,
    open_pages,
    quick_commands,
    saving,
    spread,
    transfer_rows,
    tunnel_latency,
    waiting_runs,
    warm_run,
)
from bench.table import Row, markdown
from bench.testbed import Testbed

Rows = Callable[[Testbed, int], Iterator[Row]]

PARTS: dict[str, Rows] = {
    "warm_run": warm_run.rows,
    "first_contact": first_contact.rows,
    "transfers": transfer_rows.rows,
    "tunnel_latency": tunnel_latency.rows,
    "local_port": local_port.rows,
    "many_runs": many_runs.rows,
    "spread": spread.rows,
    "waiting_runs": waiting_runs.rows,
    "saving": saving.rows,
    "open_pages": open_pages.rows,
    "first_sight": first_sight.rows,
    "jobs": jobs.rows,
    "quick_commands": quick_commands.rows,
}

PAGE = """# Benchmarks

Durations of this server compared with common alternatives, measured together in one session. Figures are
medians of at least {runs} runs. `make bench` repeats the measurements and writes this page; no other program
should run on the machine at the same time.

{machine}.

Client, SSH server and ComfyUI run on the same machine. So "near" has no network, and includes the CPU time of
all of them. "At 80 ms" uses a proxy that delays every byte by 40 ms in each direction: it models round trips
and SSH windows, but not packet loss, bandwidth or TCP slow start. ComfyUI is that of the sandbox; the SSH
server is OpenSSH. "Met" refers to this measurement only.

{table}"""


def main() -> None:
    arguments = _arguments()
    with tempfile.TemporaryDirectory(prefix="bench-") as directory, Testbed(Path(directory)) as testbed:
        rows = [row for name in arguments.only for row in _measured(name, testbed, arguments.runs)]
    sys.stdout.write(markdown(rows))
    if arguments.write:
        page = PAGE.format(runs=arguments.runs, machine=machine.description(), table=markdown(rows))
        arguments.write.write_text(page)


def _measured(name: str, testbed: Testbed, runs: int) -> list[Row]:
    began_s = time.monotonic()
    rows = []
    for row in PARTS[name](testbed, runs):
        rows.append(row)
        _say(" | ".join(row.cells))
    _say(f"{name} took {time.monotonic() - began_s:.0f} s")
    return rows


def _say(line: str) -> None:
    """Prints a line to stderr during the measurement; the table follows at the end."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=5, help="minimum number of measurements")
    parser.add_argument(
        "--only", nargs="+", choices=PARTS, default=list(PARTS), help="measure these parts only"
    )
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the Markdown page to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
