"""The log of a run: JSON lines. The first line is the whole state, each later line is one change.

    {"workflow_id": ..., "status": "queued", "nodes": [...], ...}       the whole state
    {"n": 1, "set": {"status": "executing", ...}, "nodes": [...]}       fields; nodes, by their ids
    {"n": 2, "set": {"last_update": ...}, "outputs": [...]}             outputs, by their keys

How it works. A step writes only what it changes, so its cost does not depend on the number of nodes and
outputs of the run. Lines are never overwritten: data that reached the disk stays there. A later whole state
replaces everything before it. A line that was cut short is ignored, and the next line uses its number again.
So a missing number means that the file is damaged.
"""

from collections.abc import Iterable, Sequence
from dataclasses import fields
from functools import cache
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from comfyui_workflow.errors import StoreError
from comfyui_workflow.runs.model import NodeProgress, OutputFile, Run

Item = TypeVar("Item", NodeProgress, OutputFile)

_SEPARATE = ("request", "prepared_graph", "nodes", "outputs")
_FIELDS = tuple(field.name for field in fields(Run) if field.name not in _SEPARATE)
_runs = cache(lambda: TypeAdapter(Run))
_nodes = cache(lambda: TypeAdapter(tuple[NodeProgress, ...]))
_outputs = cache(lambda: TypeAdapter(tuple[OutputFile, ...]))
_lines = cache(lambda: TypeAdapter(dict[str, Any]))


def encode_change(before: Run, after: Run, number: int) -> bytes:
    """The log line that changes `before` into `after`, without a line break. `number` counts the changes
    since the whole state."""
    names = {name for name in _FIELDS if getattr(before, name) != getattr(after, name)}
    nodes = _changed_items(before.nodes, after.nodes)
    outputs = _changed_items(before.outputs, after.outputs)
    names |= {name for name, items in (("nodes", nodes), ("outputs", outputs)) if items is None}
    parts = [b'{"n":%d' % number, b'"set":' + _runs().dump_json(after, by_alias=True, include=names)]
    if nodes:
        parts.append(b'"nodes":' + _nodes().dump_json(tuple(nodes)))
    if outputs:
        parts.append(b'"outputs":' + _outputs().dump_json(tuple(outputs), exclude_none=True))
    return b",".join(parts) + b"}"


def _changed_items(before: Sequence[Item], after: Sequence[Item]) -> list[Item] | None:
    """The new and changed items. None if the list of changed items is not enough, because items were removed
    or moved."""
    if before is after:
        return []
    pairs = [(old, new) for old, new in zip(before, after, strict=False) if old is not new]
    if len(after) < len(before) or any(_key(old) != _key(new) for old, new in pairs):
        return None
    return [new for old, new in pairs if old != new] + list(after[len(before) :])


def _key(item: NodeProgress | OutputFile) -> object:
    return item.node_id if isinstance(item, NodeProgress) else item.key


def newest_state(log: bytes) -> tuple[bytes, list[dict[str, Any]]]:
    """Returns the last whole state and the changes after it. Raises: StoreError if there is no state, or if a
    change is missing."""
    if is_state(only := log.removesuffix(b"\n")) and b"\n" not in only:  # fast path: most waiting runs
        return only, []
    lines = log.split(b"\n")
    start = max((index for index, line in enumerate(lines) if is_state(line)), default=None)
    if start is None:
        raise StoreError("not the record of a run: there is no state in it")
    changes = list(_changes(lines[start + 1 :]))
    if [change["n"] for change in changes] != list(range(1, len(changes) + 1)):
        raise StoreError("not the record of a run: a step of it is missing")
    return lines[start], changes


def is_state(line: bytes) -> bool:
    return begins_with_state(line) and line.endswith(b"}")


def begins_with_state(log: bytes) -> bool:
    return log.startswith(b'{"workflow_id"')


def _changes(lines: Iterable[bytes]) -> Iterable[dict[str, Any]]:
    for line in lines:
        try:
            change = _lines().validate_json(line)
        except ValidationError:  # a line that was cut short
            continue
        if isinstance(change.get("n"), int) and isinstance(change.get("set"), dict):
            yield change


def with_changes(state: dict[str, Any], changes: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Applies the changes to the state (JSON). Raises: StoreError."""
    try:
        fields, nodes, outputs = dict(state), _Items(_NODE_KEY), _Items(_OUTPUT_KEY)
        items = {"nodes": nodes, "outputs": outputs}
        for name, each in items.items():
            each.begin(fields.get(name, []))
        for change in changes:
            fields |= change["set"]
            for name, each in items.items():
                if name in change["set"]:
                    each.begin(change["set"][name])
                each.add(change.get(name, []))
        return fields | {name: each.all() for name, each in items.items() if name in fields or each.all()}
    except (KeyError, TypeError, AttributeError) as error:
        raise StoreError("not the record of a run: one of its changes is none") from error


_NODE_KEY = ("node_id",)
_OUTPUT_KEY = ("folder", "subfolder", "filename")


class _Items:
    """Nodes or outputs as JSON, in their order. New items are appended."""

    def __init__(self, key: tuple[str, ...]) -> None:
        self._key = key
        self._by_key = dict[tuple[Any, ...], Any]()

    def begin(self, items: list[Any]) -> None:
        self._by_key = {}
        self.add(items)

    def add(self, items: list[Any]) -> None:
        self._by_key.update((tuple(item[key] for key in self._key), item) for item in items)

    def all(self) -> list[Any]:
        return list(self._by_key.values())
