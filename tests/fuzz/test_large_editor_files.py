"""Files of the editor that are large, or stand for more than they are: converted about as fast as they are
read, or refused."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from comfyui_workflow.errors import InvalidGraph
from tests.workflows.making import class_of, file, graph_of, node, socket, subgraph

CLASSES = {
    "Wide": class_of({f"p{n}": ["INT", {}] for n in range(1_000)}),
    "Dynamic": class_of({"t": ["STRING", {"dynamicPrompts": True}]}),
    "Text": class_of({"t": ["STRING", {}]}),
    "SaveImage": class_of({"filename_prefix": ["STRING", {}]}),
}


def chain(count: int, users: int = 1, *, kind: str = "Reroute", mode: int = 0) -> Any:
    """All the users at the end of a chain of nodes that are passed."""
    passed = [node(n, kind, mode=mode, inputs=[socket("i", n, "IMAGE")]) for n in range(1, count + 1)]
    last = range(count + 1, count + 1 + users)
    links = [(n, n - 1, 0, n, 0) for n in range(1, count + 1)] + [(n, count, 0, n, 0) for n in last]
    ends = [node(n, "End", inputs=[socket("x", n, "IMAGE")]) for n in last]
    return file(node(0, "A"), *passed, *ends, links=links)


def wide_bypass(count: int) -> Any:
    """Every user asks a node of many inputs for a type that it has not got."""
    inputs = [socket(f"i{n}", n, f"T{n}") for n in range(count)]
    users = [node(2 + n, "End", inputs=[socket("x", count + n, "OTHER")]) for n in range(count)]
    links = [(n, 0, 0, 1, n) for n in range(count)] + [(count + n, 1, n, 2 + n, 0) for n in range(count)]
    return file(node(0, "A"), node(1, "Gone", mode=4, inputs=inputs), *users, links=links)


def shown_through(levels: int, count: int = 1_000) -> Any:
    """Widgets that every subgraph shows to the one around it."""
    found = []
    for level in range(levels):
        kind = f"S{level + 1}" if level < levels - 1 else "Wide"
        inner = node(1, kind, inputs=[socket(f"p{n}", n, "INT", widget=True) for n in range(count)])
        links = [(n, -10, n, 1, n) for n in range(count)]
        found.append(
            subgraph(f"S{level}", inner, links=links, inputs=[(f"p{n}", "INT", n) for n in range(count)])
        )
    return file(node(1, "S0"), definitions={"subgraphs": found})


def outputs(count: int) -> Any:
    """Users of as many outputs of a subgraph."""
    links = [(n, 1, n, -20, n) for n in range(count)]
    inner = subgraph("S", node(1, "A"), links=links, outputs=[(f"o{n}", "*", n) for n in range(count)])
    users = [node(n, "End", inputs=[socket("x", n)]) for n in range(count)]
    ends = [(n, "s", n, n, 0) for n in range(count)]
    return file(node("s", "S"), *users, links=ends, definitions={"subgraphs": [inner]})


def doubled(levels: int) -> Any:
    twice = [subgraph(f"S{n}", node(1, f"S{n + 1}"), node(2, f"S{n + 1}")) for n in range(levels)]
    return file(node(1, "S0"), definitions={"subgraphs": twice})


def in_each_other(levels: int) -> Any:
    once = [subgraph(f"S{n}", node(1, f"S{n + 1}")) for n in range(levels)]
    return file(node(1, "S0"), definitions={"subgraphs": once})


def many_texts(count: int) -> Any:
    inner = subgraph("S", *(node(n, "Text", ["x" * 100_000]) for n in range(10)))
    return file(*(node(n, "S") for n in range(count)), definitions={"subgraphs": [inner]})


def texts(kind: str, text: str, *others: Any) -> Any:
    return file(node(1, kind, [text]), *others)


def named(savers: int) -> Any:
    return file(*(node(n, "SaveImage", ["%T.t%" * 100]) for n in range(savers)))


@pytest.mark.parametrize(
    "workflow",
    [
        chain(20_000),
        chain(3_000, 3_000),
        chain(3_000, 3_000, kind="Gone", mode=4),
        chain(0, 5_000),
        wide_bypass(2_000),
        shown_through(15),
        outputs(3_000),
        named(2_000),
        texts("Dynamic", "}" * 500_000),
        texts("Dynamic", "{" * 500_000),
        texts("Dynamic", "{" + "|" * 500_000),
        texts("Dynamic", "/* " * 300_000),
        texts("Dynamic", "// " * 300_000),
        texts("SaveImage", "%T.t%" * 100_000, node("T", "Text", ["x" * 100_000], title="T")),
    ],
    ids=[
        "chain",
        "users",
        "bypassed",
        "links",
        "wide",
        "shown",
        "outputs",
        "named",
        "closing",
        "opening",
        "bars",
        "blocks",
        "lines",
        "names",
    ],
)
def test_it_is_converted(workflow: Any) -> None:
    """Less than a second each; it would be minutes if the time grew with the square of the size."""
    began = time.process_time()
    assert graph_of(workflow, CLASSES)
    assert time.process_time() - began < 30.0


@pytest.mark.parametrize(
    ("shape", "size", "words"),
    [
        (doubled, 25, "more than 50000 nodes"),
        (in_each_other, 3_000, "nested too deeply"),
        (many_texts, 100, "too much text"),
    ],
)
def test_it_stands_for_too_much(shape: Callable[[int], Any], size: int, words: str) -> None:
    began = time.process_time()
    with pytest.raises(InvalidGraph, match=words):
        graph_of(shape(size), CLASSES)
    assert time.process_time() - began < 30.0
