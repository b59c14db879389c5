"""What the file of named instances holds: `{"instances": [{…}, …]}`, and what else was written there."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from comfyui_workflow.errors import InvalidRequest
from comfyui_workflow.instances.model import Instance
from comfyui_workflow.instances.schema import (
    KNOWN_FIELDS,
    new_id,
    read_id,
    read_instance,
    refuse_clash,
)
from comfyui_workflow.parsing.untrusted import read_json

Raw = Mapping[str, Any]
DEEPEST_NESTING = 50
VERSION = 1
"""Of the file, where it says one."""


class NewerInstances(InvalidRequest):
    """The file of a newer release."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    instance: Instance
    raw: Raw
    """As it was written: what is not there is as usual, and stays so when that changes."""


@dataclass(frozen=True, kw_only=True)
class Content:
    """`rest` is what the file says besides its instances."""

    entries: tuple[Entry, ...] = ()
    rest: Raw = field(default_factory=dict)

    @property
    def instances(self) -> tuple[Instance, ...]:
        return tuple(entry.instance for entry in self.entries)

    def with_entry(self, instance_id: str, raw: Raw) -> "Content":
        """A new one at the end, or the one of that id as it is now. Raises: InvalidRequest."""
        instance = read_instance(raw, instance_id)
        others = [each for each in self.instances if each.id != instance_id]
        refuse_clash(instance, others)
        entry = Entry(instance=instance, raw=_as_written(raw, instance_id))
        places = {each.instance.id: each for each in self.entries} | {instance_id: entry}
        return Content(entries=tuple(places.values()), rest=self.rest)

    def without(self, instance_id: str) -> "Content":
        kept = tuple(entry for entry in self.entries if entry.instance.id != instance_id)
        return Content(entries=kept, rest=self.rest)

    def find(self, id_or_name: str) -> Entry | None:
        """No name is the id of another instance."""
        wanted = id_or_name.strip().casefold()
        return next((entry for entry in self.entries if wanted in _called_by(entry.instance)), None)


def read_content(content: bytes) -> Content:
    """Raises: InvalidRequest, naming the entry and the field."""
    try:
        document = read_json(content)
    except ValueError as error:
        raise InvalidRequest(f"it is not JSON ({error})") from error
    if not isinstance(document, dict) or not isinstance(document.get("instances"), list):
        raise InvalidRequest('it does not read {"instances": [{…}, …]}')
    version = document.get("version")
    if isinstance(version, int) and version > VERSION:
        raise NewerInstances(
            f"it is of version {version}, which a newer release has written; this reads version {VERSION}. "
            "Start that release again, or name another file with COMFYUI_WORKFLOW_INSTANCES_FILE"
        )
    if _is_nested_deeper(document, DEEPEST_NESTING):
        raise InvalidRequest("it is nested too deeply")
    rest = {name: value for name, value in document.items() if name != "instances"}
    return Content(entries=tuple(_entries(document["instances"])), rest=rest)


def word_content(content: Content) -> bytes:
    document = {**content.rest, "instances": [entry.raw for entry in content.entries]}
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()


def _entries(raws: list[Any]) -> Iterator[Entry]:
    """An entry that has no id yet gets one that is neither id nor name of another."""
    taken = {word for raw in raws if isinstance(raw, dict) for word in _words(raw)}
    read: list[Instance] = []
    for number, raw in enumerate(raws, start=1):
        try:
            entry = _entry(raw, taken, read)
        except InvalidRequest as error:
            raise InvalidRequest(f"instance {number}{_named(raw)}: {error}") from error
        taken.add(entry.instance.id)
        read.append(entry.instance)
        yield entry


def _entry(raw: Any, taken: set[str], others: list[Instance]) -> Entry:
    if not isinstance(raw, dict):
        raise InvalidRequest("it is not an object")
    given_id = read_id(raw)
    instance = read_instance(raw, given_id or "")
    if given_id is None:
        own_name = instance.name.casefold()
        instance = replace(instance, id=new_id(instance.name, taken - {own_name}))
    refuse_clash(instance, others)
    return Entry(instance=instance, raw=_as_written(raw, instance.id))


def _words(raw: Raw) -> Iterator[str]:
    """What nobody else may be called."""
    given = (raw.get("id"), raw.get("name"))
    return (word.strip().casefold() for word in given if isinstance(word, str))


def _as_written(raw: Raw, instance_id: str) -> Raw:
    kept = {name: value for name, value in raw.items() if value is not None or name not in KNOWN_FIELDS}
    return {"id": instance_id} | kept | {"id": instance_id}


def _named(raw: object) -> str:
    name = raw.get("name") if isinstance(raw, dict) else None
    return f" ({name})" if isinstance(name, str) and len(name) <= 64 and name.isprintable() else ""


def _called_by(instance: Instance) -> tuple[str, str]:
    return (instance.id, instance.name.casefold())


def _is_nested_deeper(value: object, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_is_nested_deeper(each, levels - 1) for each in inner)
