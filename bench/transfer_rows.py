"""The rows of `bench.transfers`, near and far, with their goals."""

from collections.abc import Iterator

from bench import transfers
from bench.table import Figure, Goal, Row, at_least, at_most
from bench.testbed import Link, Testbed

FULL_MB = 100
FULL_FILES = 200
NEAR_GOAL = at_least(0.7, "times as fast")
LARGE_FAR_GOAL = at_least(3, "times as fast")
MANY_FAR_GOAL = at_least(5, "times as fast")
CPU_GOAL = at_most(0.5, "s")
NOTE = (
    "This project uses an open connection, as in a running server; OpenSSH's tools log in each time. At "
    "80 ms, sftp transfers a tenth of the many files, and its time is multiplied by ten."
)


def rows(testbed: Testbed, runs: int) -> Iterator[Row]:
    for link in testbed.links:
        yield from rows_of(link, runs)


def rows_of(link: Link, runs: int, size_mb: int = FULL_MB, files: int = FULL_FILES) -> Iterator[Row]:
    measured = transfers.measure(runs=runs, rtt_s=link.round_trip_s, size_mb=size_mb, file_count=files)
    for contest in measured:
        yield _speed(contest, link)
    if not link.round_trip_s:
        yield from (_cpu(contest, link) for contest in measured if _is_large(contest))


def _speed(contest: transfers.Row, link: Link) -> Row:
    return Row(
        work=f"{contest.work}, {link.name}",
        ours=Figure(value=contest.ours_s, unit="s"),
        reference=Figure(value=contest.reference_s, unit="s", about=contest.reference),
        against=Figure(value=contest.ratio, unit="times as fast"),
        goal=_goal(contest, link),
        note=NOTE,
    )


def _cpu(contest: transfers.Row, link: Link) -> Row:
    used = Figure(value=contest.cpu_s_per_100_mb, unit="s")
    return Row(
        work=f"CPU for {contest.work}, {link.name}", ours=used, reference="–", against=used, goal=CPU_GOAL
    )


def _goal(contest: transfers.Row, link: Link) -> Goal:
    if not link.round_trip_s:
        return NEAR_GOAL
    return LARGE_FAR_GOAL if _is_large(contest) else MANY_FAR_GOAL


def _is_large(contest: transfers.Row) -> bool:
    """True for a transfer of one large file."""
    return "files" not in contest.work
