"""The rows of `bench.transfers`, near and far, with what is promised of each."""

from collections.abc import Iterator

from bench import transfers
from bench.table import Figure, Goal, Row, at_least, at_most
from bench.testbed import Testbed, Way

FULL_MB = 100
FULL_FILES = 200
NEAR_GOAL = at_least(0.7, "times as fast")
LARGE_FAR_GOAL = at_least(3, "times as fast")
MANY_FAR_GOAL = at_least(5, "times as fast")
CPU_GOAL = at_most(0.5, "s")
NOTE = (
    "Ours on a connection that is open, as it is in a running server; OpenSSH's tools log in each time, as "
    "they do. Of the many files far away sftp moves a tenth, and its time is multiplied."
)


def rows(testbed: Testbed, runs: int) -> Iterator[Row]:
    for way in testbed.ways:
        yield from rows_of(way, runs)


def rows_of(way: Way, runs: int, size_mb: int = FULL_MB, files: int = FULL_FILES) -> Iterator[Row]:
    measured = transfers.measure(runs=runs, rtt_s=way.round_trip_s, size_mb=size_mb, file_count=files)
    for contest in measured:
        yield _speed(contest, way)
    if not way.round_trip_s:
        yield from (_cpu(contest, way) for contest in measured if _is_large(contest))


def _speed(contest: transfers.Row, way: Way) -> Row:
    return Row(
        work=f"{contest.work}, {way.name}",
        ours=Figure(value=contest.ours_s, unit="s"),
        reference=Figure(value=contest.reference_s, unit="s", about=contest.reference),
        against=Figure(value=contest.ratio, unit="times as fast"),
        goal=_goal(contest, way),
        note=NOTE,
    )


def _cpu(contest: transfers.Row, way: Way) -> Row:
    used = Figure(value=contest.cpu_s_per_100_mb, unit="s")
    return Row(
        work=f"CPU for {contest.work}, {way.name}", ours=used, reference="–", against=used, goal=CPU_GOAL
    )


def _goal(contest: transfers.Row, way: Way) -> Goal:
    if not way.round_trip_s:
        return NEAR_GOAL
    return LARGE_FAR_GOAL if _is_large(contest) else MANY_FAR_GOAL


def _is_large(contest: transfers.Row) -> bool:
    """One file of that size, not many."""
    return "files" not in contest.work
