"""The log of a run: each line contains only its changes, and all lines together give the run."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest

from comfyui_workflow.errors import StoreError
from comfyui_workflow.runs.changes import encode_change, newest_state
from comfyui_workflow.runs.codec import decode_outputs, decode_run, encode_request, encode_run
from comfyui_workflow.runs.model import NodeProgress, OutputFile, Run
from tests.runs.test_state_machine import new_run


def log_of(runs: Sequence[Run]) -> bytes:
    """The first as a whole state, the others as changes."""
    changes = [
        encode_change(before, after, number) for number, (before, after) in enumerate(pairwise(runs), 1)
    ]
    return b"".join(line + b"\n" for line in [encode_run(runs[0]), *changes])


def decoded(run: Run, log: bytes) -> Run:
    return decode_run(encode_request(run.request), log)


def outputs(*names: str) -> tuple[OutputFile, ...]:
    return tuple(OutputFile(filename=name) for name in names)


FIRST = new_run()
NODES = FIRST.nodes
STEPS = [
    replace(FIRST, message="x", queue_position=3),
    replace(FIRST, nodes=(NODES[0], replace(NODES[1], progress=50.0), *NODES[2:])),
    replace(FIRST, nodes=NODES[:1]),
    replace(FIRST, nodes=NODES[::-1]),
    replace(FIRST, nodes=(NodeProgress(node_id="99", node_type="New"), *NODES)),
    replace(FIRST, outputs=outputs("a", "b", "c")),
    replace(FIRST, outputs=(*outputs("a"), replace(outputs("b")[0], local_path="/b"), *outputs("c", "d"))),
    replace(FIRST, outputs=outputs("d", "a")),
    replace(FIRST, outputs=()),
    FIRST,
]


def test_all_steps_together_are_the_run() -> None:
    for count in range(1, len(STEPS) + 1):
        log = log_of([FIRST, *STEPS[:count]])
        assert decoded(FIRST, log) == STEPS[count - 1]
        assert decode_outputs(log) == STEPS[count - 1].outputs


def test_a_step_costs_what_is_new_in_it() -> None:
    nodes = tuple(NodeProgress(node_id=str(number), node_type="KSampler") for number in range(2000))
    many = replace(FIRST, nodes=nodes, outputs=outputs(*(f"{number}.png" for number in range(4000))))
    stepped = replace(many, nodes=(*nodes[:-1], replace(nodes[-1], progress=10.0)))
    fetched = replace(many, outputs=(*many.outputs[:-1], replace(many.outputs[-1], local_path="/x")))
    for changed in (stepped, fetched, replace(many, outputs=(*many.outputs, *outputs("new.png")))):
        assert len(encode_change(many, changed, 1)) < 500


def test_what_was_cut_short_is_no_step_and_a_missing_step_is_noticed() -> None:
    lines = log_of([FIRST, *STEPS]).splitlines(keepends=True)
    torn = b"".join(lines[:4]) + lines[4][:-20]
    assert decoded(FIRST, torn) == STEPS[2]
    assert decoded(FIRST, torn + b"\n" + b"".join(lines[4:])) == STEPS[-1]  # its number was used again
    assert decoded(FIRST, b"".join(lines) + b"\0" * 100) == STEPS[-1]
    with pytest.raises(StoreError, match="a step of it is missing"):
        decoded(FIRST, b"".join([*lines[:2], *lines[3:]]))
    with pytest.raises(StoreError, match="no state"):
        decoded(FIRST, b"".join(lines[1:]))


def test_a_later_whole_state_stands_for_everything_before_it() -> None:
    log = log_of([FIRST, *STEPS[:3]]) + b'{"n":9, "se\n' + log_of(STEPS[5:7])
    assert decoded(FIRST, log) == STEPS[6]
    assert newest_state(log)[0] == encode_run(STEPS[5])


@pytest.mark.parametrize("line", [b'{"n":1,"set":{},"nodes":[5]}', b'{"n":1,"set":{},"outputs":[{"a":1}]}'])
def test_a_change_that_is_none_is_refused(line: bytes) -> None:
    with pytest.raises(StoreError):
        decoded(FIRST, encode_run(FIRST) + b"\n" + line + b"\n")
