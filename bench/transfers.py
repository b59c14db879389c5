"""Uploads and downloads, compared with OpenSSH's tools, over one sshd.

    python -m bench.transfers [--runs 3] [--rtt 0.08] [--size-mb 100] [--files 200]
    rows = measure(runs=5, rtt_s=0.08)

This project uses an open connection, as in a running server; scp and sftp log in each time.
"""

import argparse
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from bench.delay_proxy import delay_proxy
from comfyui_workflow.parsing.ssh_address import parse_ssh_address
from comfyui_workflow.ssh.connection import Connection, ConnectionOptions, open_connection
from comfyui_workflow.ssh.known_hosts import KnownHosts
from tests.sshd import Sshd

FILE_BYTES = 500_000
LIMIT_S = 600


@dataclass(frozen=True, kw_only=True)
class Row:
    """`ratio`: how many times as fast this project is. `cpu_s_per_100_mb`: CPU time of this process only."""

    work: str
    reference: str
    ours_s: float
    reference_s: float
    cpu_s_per_100_mb: float

    @property
    def ratio(self) -> float:
        return self.reference_s / self.ours_s


@dataclass(kw_only=True)
class _Contest:
    work: str
    reference: str
    size_bytes: int
    ours: Callable[[], object]
    theirs: Callable[[], object]
    ours_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    theirs_s: list[float] = field(default_factory=list)

    def run(self) -> None:
        cpu_before_s, before_s = time.process_time(), time.perf_counter()
        self.ours()
        self.ours_s.append(time.perf_counter() - before_s)
        self.cpu_s.append(time.process_time() - cpu_before_s)
        before_s = time.perf_counter()
        self.theirs()
        self.theirs_s.append(time.perf_counter() - before_s)

    def row(self) -> Row:
        return Row(
            work=self.work,
            reference=self.reference,
            ours_s=statistics.median(self.ours_s),
            reference_s=statistics.median(self.theirs_s),
            cpu_s_per_100_mb=statistics.median(self.cpu_s) / (self.size_bytes / 1e8),
        )


def measure(*, runs: int, rtt_s: float = 0.0, size_mb: int = 100, file_count: int = 200) -> list[Row]:
    """Returns medians of `runs` alternating runs. With a delay, sftp transfers only a tenth of the many
    files, and its time is multiplied, because each file takes about a second."""
    with _bench(rtt_s) as bench:
        contests = [
            *bench.one_file(size_mb * 1_000_000),
            *bench.many_files(file_count, share=0.1 if rtt_s else 1),
        ]
        for _ in range(runs):
            for contest in contests:
                contest.run()
        return [contest.row() for contest in contests]


class _Bench:
    def __init__(self, directory: Path, sshd: Sshd, port: int, connection: Connection) -> None:
        self._directory = directory
        self._sshd = sshd
        self._port = port
        self._files = connection.files
        self._target = directory / "target"

    def one_file(self, size_bytes: int) -> list[_Contest]:
        source = self._directory / "large"
        source.write_bytes(os.urandom(size_bytes))
        far = f"{self._sshd.user}@127.0.0.1:"
        name = f"{size_bytes // 1_000_000} MB"
        return [
            _Contest(
                work=f"{name} down",
                reference="scp",
                size_bytes=size_bytes,
                ours=lambda: self._files.download(str(source), self._fresh()),
                theirs=lambda: self._tool("scp", f"{far}{source}", str(self._fresh())),
            ),
            _Contest(
                work=f"{name} up",
                reference="scp",
                size_bytes=size_bytes,
                ours=lambda: self._files.upload(source, str(self._fresh())),
                theirs=lambda: self._tool("scp", str(source), f"{far}{self._fresh()}"),
            ),
        ]

    def many_files(self, count: int, *, share: float) -> list[_Contest]:
        sources = [self._directory / f"small {number}" for number in range(count)]
        for source in sources:
            source.write_bytes(os.urandom(FILE_BYTES))
        return [
            self._many(
                "down", "get", sources, share, lambda source, to: self._files.download(str(source), to)
            ),
            self._many("up", "put", sources, share, lambda source, to: self._files.upload(source, str(to))),
        ]

    def _many(
        self,
        direction: str,
        verb: str,
        sources: list[Path],
        share: float,
        move: Callable[[Path, Path], object],
    ) -> _Contest:
        some = sources[: round(len(sources) * share)]

        def ours() -> None:
            target = self._fresh_directory()
            with ThreadPoolExecutor(self._files.transfers_at_once) as threads:
                list(threads.map(lambda source: move(source, target / source.name), sources))

        def theirs() -> None:
            target = self._fresh_directory()
            batch = self._directory / "batch"
            lines = [f'{verb} "{source}" "{target / source.name}"\n' for source in some]
            batch.write_text("".join(lines))
            self._tool("sftp", "-b", str(batch), f"{self._sshd.user}@127.0.0.1")

        contest = _Contest(
            work=f"{len(sources)} files of {FILE_BYTES // 1000} KB {direction}",
            reference="sftp -b",
            size_bytes=len(sources) * FILE_BYTES,
            ours=ours,
            theirs=theirs,
        )
        contest.theirs_s = _Multiplied(1 / share)
        return contest

    def _fresh(self) -> Path:
        self._target.unlink(missing_ok=True)
        return self._target

    def _fresh_directory(self) -> Path:
        directory = self._directory / "many"
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        return directory

    def _tool(self, name: str, *arguments: str) -> None:
        options = ["-F", "none", "-i", str(self._sshd.key_file), "-P", str(self._port)]
        for option in ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "IdentitiesOnly=yes"):
            options += ["-o", option]
        subprocess.run(
            [name, *options, *arguments],
            check=True,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=LIMIT_S,
        )


class _Multiplied(list[float]):
    """Stores the times of a part of the work, multiplied to times of the whole work."""

    def __init__(self, factor: float) -> None:
        self._factor = factor

    def append(self, time_s: float) -> None:
        super().append(time_s * self._factor)


@contextmanager
def _bench(rtt_s: float) -> Iterator[_Bench]:
    with tempfile.TemporaryDirectory() as name, Sshd(Path(name) / "sshd") as sshd:
        directory = Path(name)
        with delay_proxy(sshd.port, rtt_s=rtt_s) if rtt_s else nullcontext(sshd.port) as port:
            options = ConnectionOptions(known_hosts=KnownHosts(directory / "known_hosts"), key_directory=None)
            text = f"ssh -p {port} {sshd.user}@127.0.0.1 -i {shlex.quote(str(sshd.key_file))}"
            connection = open_connection(parse_ssh_address(text), 8188, options)
            try:
                yield _Bench(directory, sshd, port, connection)
            finally:
                connection.close()


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--rtt", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--size-mb", type=int, default=100)
    parser.add_argument("--files", type=int, default=200)
    arguments = parser.parse_args()
    rows = measure(
        runs=arguments.runs, rtt_s=arguments.rtt, size_mb=arguments.size_mb, file_count=arguments.files
    )
    sys.stdout.write(f"{'work':32}{'ours s':>9}{'theirs s':>10}{'times as fast':>15}{'CPU s/100 MB':>14}\n")
    for row in rows:
        sys.stdout.write(
            f"{row.work:32}{row.ours_s:9.2f}{row.reference_s:10.2f}"
            f"{row.ratio:11.2f} {row.reference:>7}{row.cpu_s_per_100_mb:10.2f}\n"
        )


if __name__ == "__main__":
    _main()
