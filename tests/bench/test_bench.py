"""Each part of `python -m bench` runs with minimal sizes. The measured values are not tested."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench import (
    finished_runs,
    first_contact,
    first_sight,
    jobs,
    local_port,
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
from bench.table import Figure, Row, at_least, at_most, markdown, percentile
from bench.testbed import Testbed

Part = Callable[[Testbed], Iterator[Row]]

SMALL = many_runs.Size(instances=2, runs_on_each=2, settle_s=0.1, quiet_window_s=0.1, requests_a_window=5)

PARTS: dict[str, Part] = {
    "warm run": lambda testbed: warm_run.rows(testbed, 1, repetitions=1, warm_ups=1),
    "first contact": lambda testbed: first_contact.rows(testbed, 1, repetitions=1),
    "transfers": lambda testbed: transfer_rows.rows_of(testbed.near, 1, size_mb=1, files=4),
    "tunnel latency": lambda testbed: tunnel_latency.rows(testbed, 1, websockets=2, requests_a_run=2),
    "local port": lambda testbed: local_port.rows(testbed, 1, bursts=(3,), pictures=2),
    "many runs": lambda testbed: many_runs.rows(testbed, 1, SMALL),
    "waiting runs": lambda testbed: waiting_runs.rows(
        testbed, 1, waiting_runs.Size(waiting=201, in_a_row=2, execution_s=0.1)
    ),
    "open pages": lambda testbed: open_pages.rows(
        testbed, 1, open_pages.Size(finished=(50,), pages=3, settle_s=0.1, window_s=0.2)
    ),
    "first sight": lambda testbed: first_sight.rows(testbed, 1, finished=(50,)),
    "jobs": lambda testbed: jobs.rows(testbed, 1, jobs.Size(running=2, requests=4)),
    "quick commands": lambda testbed: quick_commands.rows(testbed, 1, repetitions=1, listed=5),
    "spread": lambda testbed: spread.rows(testbed, 1, machines=2, steps=2),
    "saving": lambda testbed: saving.rows(testbed, 1, few=1, many=3),
}


@pytest.fixture(scope="module")
def testbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Testbed]:
    with Testbed(tmp_path_factory.mktemp("bench")) as testbed:
        yield testbed


@pytest.mark.parametrize("name", PARTS)
def test_a_part_measures(testbed: Testbed, name: str) -> None:
    rows = list(PARTS[name](testbed))
    assert rows
    for row in rows:
        assert math.isfinite(row.ours.value) and math.isfinite(row.against.value), row
    if name == "warm run":
        assert rows[-1].ours.value == 0  # handshakes


def test_a_goal_is_met_on_its_own_side() -> None:
    def row(value: float, goal: object) -> Row:
        figure = Figure(value=value, unit="ms")
        return Row(work="w", ours=figure, reference="", against=figure, goal=goal)  # type: ignore[arg-type]

    assert row(3, at_most(3)).is_met and not row(3.1, at_most(3)).is_met
    assert row(3, at_least(3)).is_met and not row(2.9, at_least(3)).is_met
    assert row(3, None).is_met is None


def test_the_table_is_markdown() -> None:
    figure = Figure(value=1234.5, unit="ms")
    row = Row(work="work", ours=figure, reference="–", against=figure, goal=at_most(2, "s"), note="as seen")
    lines = markdown([row, row]).splitlines()
    assert lines[2] == "| work [1] | 1,234 ms | – | 1,234 ms | at most 2 s | **no** |"
    assert lines[-1] == "1. as seen"


def test_percentile_is_a_measured_value() -> None:
    assert percentile(range(1, 101), 99) == 99
    assert percentile([5.0], 90) == 5.0


def test_finished_runs_are_measured(tmp_path: Path) -> None:
    finished_runs.write_runs(tmp_path / "data", 20)
    measured = finished_runs.measure_start(tmp_path / "data")
    assert measured.start_ms > 0
    assert measured.answers_ms.keys() == finished_runs.QUESTIONS.keys()
