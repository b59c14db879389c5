"""How fast it is, next to what people would use instead.

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
    machine,
    many_runs,
    open_pages,
    quick_commands,
    saving,
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
    "many_runs": many_runs.rows,
    "waiting_runs": waiting_runs.rows,
    "saving": saving.rows,
    "open_pages": open_pages.rows,
    "first_sight": first_sight.rows,
    "jobs": jobs.rows,
    "quick_commands": quick_commands.rows,
}

PAGE = """# Benchmarks

How long things take, next to what people would use instead, measured side by side in one run: medians of
{runs} runs at least. `make bench` measures anew and writes this page; nothing else should run on the machine
meanwhile.

{machine}.

Client, SSH server and ComfyUI share this machine, so "near" is without a network and everybody's work counts
in it. "At 80 ms" leads through a proxy that delays every byte by half of that each way: it models round trips
and SSH's windows, not loss, bandwidth or TCP's slow start. The ComfyUI is the sandbox's, the SSH server is
OpenSSH. "Met" is of this one measurement.

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
    """As it happens, beside the table that comes at the end."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=5, help="how often each is measured, at least")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="these parts alone")
    parser.add_argument("--write", type=Path, metavar="FILE", help="a Markdown page to write")
    return parser.parse_args()


if __name__ == "__main__":
    main()
