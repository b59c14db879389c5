"""Parsed content of the instance registry. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from comfyui_workflow.errors import InstanceNotFound, InvalidRequest
from comfyui_workflow.instances.model import Instance
from comfyui_workflow.instances.schema import (
    KNOWN_FIELDS,
    new_id,
    read_id,
    read_instance,
    refuse_clash,
)
from comfyui_workflow.stores.base import Document, InstanceDocuments


@dataclass(frozen=True, kw_only=True)
class RegistryEntry:
    instance: Instance
    raw: Document
    """The document as the user wrote it: a missing field keeps following its default."""


@dataclass(frozen=True, kw_only=True)
class RegistryContent:
    """All entries, and the unknown fields beside them (`rest`), which are kept."""

    entries: tuple[RegistryEntry, ...] = ()
    rest: Document = field(default_factory=dict)

    @property
    def instances(self) -> tuple[Instance, ...]:
        return tuple(entry.instance for entry in self.entries)

    @property
    def documents(self) -> InstanceDocuments:
        return InstanceDocuments(documents=tuple(entry.raw for entry in self.entries), rest=self.rest)

    def with_entry(self, instance_id: str, raw: Document) -> "RegistryContent":
        """Returns a copy with the entry replaced, or appended if its id is new. Raises: InvalidRequest."""
        instance = read_instance(raw, instance_id)
        others = [each for each in self.instances if each.id != instance_id]
        refuse_clash(instance, others)
        entry = RegistryEntry(instance=instance, raw=_stored_document(raw, instance_id))
        by_id = {each.instance.id: each for each in self.entries} | {instance_id: entry}
        return RegistryContent(entries=tuple(by_id.values()), rest=self.rest)

    def without(self, instance_id: str) -> "RegistryContent":
        kept = tuple(entry for entry in self.entries if entry.instance.id != instance_id)
        return RegistryContent(entries=kept, rest=self.rest)

    def find(self, id_or_name: str) -> RegistryEntry | None:
        """Finds an entry by its id, or by its name in any case. No name equals the id of another instance."""
        wanted = id_or_name.strip().casefold()
        return next((entry for entry in self.entries if wanted in _names_of(entry.instance)), None)

    def require(self, id_or_name: str) -> RegistryEntry:
        """Raises: InstanceNotFound."""
        entry = self.find(id_or_name)
        if entry is None:
            raise InstanceNotFound(f"There is no instance called {id_or_name[:100]}")
        return entry


def content_of(documents: InstanceDocuments) -> RegistryContent:
    """Parses the documents. Raises: InvalidRequest, which names the entry and the field."""
    return RegistryContent(entries=tuple(_entries(documents.documents)), rest=documents.rest)


def complete(documents: InstanceDocuments) -> InstanceDocuments:
    """Returns the documents with an id in each of them. Raises: InvalidRequest."""
    return content_of(documents).documents


def _entries(raws: Sequence[Any]) -> Iterator[RegistryEntry]:
    """Parses the entries. An entry without an id gets one that is neither id nor name of another entry."""
    taken = {name for raw in raws if isinstance(raw, dict) for name in _identifiers(raw)}
    read: list[Instance] = []
    for number, raw in enumerate(raws, start=1):
        try:
            entry = _entry(raw, taken, read)
        except InvalidRequest as error:
            raise InvalidRequest(f"instance {number}{_label(raw)}: {error}") from error
        taken.add(entry.instance.id)
        read.append(entry.instance)
        yield entry


def _entry(raw: Any, taken: set[str], others: list[Instance]) -> RegistryEntry:
    if not isinstance(raw, dict):
        raise InvalidRequest("it is not an object")
    given_id = read_id(raw)
    instance = read_instance(raw, given_id or "")
    if given_id is None:
        own_name = instance.name.casefold()
        instance = replace(instance, id=new_id(instance.name, taken - {own_name}))
    refuse_clash(instance, others)
    return RegistryEntry(instance=instance, raw=_stored_document(raw, instance.id))


def _identifiers(raw: Document) -> Iterator[str]:
    """Yields the id and the name, which no other instance may have as id or name."""
    given = (raw.get("id"), raw.get("name"))
    return (value.strip().casefold() for value in given if isinstance(value, str))


def _stored_document(raw: Document, instance_id: str) -> Document:
    kept = {name: value for name, value in raw.items() if value is not None or name not in KNOWN_FIELDS}
    return {"id": instance_id} | kept | {"id": instance_id}


def _label(raw: object) -> str:
    name = raw.get("name") if isinstance(raw, dict) else None
    return f" ({name})" if isinstance(name, str) and len(name) <= 64 and name.isprintable() else ""


def _names_of(instance: Instance) -> tuple[str, str]:
    return (instance.id, instance.name.casefold())
