"""The named instances: read, added, changed and removed by id or name.

InstanceRegistry(store)
    load()                                   raises ConfigurationError where they cannot be read
    all(), get(id_or_name), require(id_or_name), trouble
    add(fields), change(id_or_name, fields), remove(id_or_name)
    listen(callback)                         called after each change, whoever made it
"""

from collections.abc import Callable

from comfyui_workflow.instances.entries import RegistryContent, content_of
from comfyui_workflow.instances.model import Instance
from comfyui_workflow.instances.schema import new_id, read_instance, refuse_unknown
from comfyui_workflow.stores.base import Document, InstanceDocuments, InstanceStore


class InstanceRegistry:
    """Every method may be called from any thread."""

    def __init__(self, store: InstanceStore) -> None:
        self._store = store
        self._parsed = (InstanceDocuments(), RegistryContent())

    def load(self) -> None:
        """Raises: ConfigurationError."""
        self._store.open()

    @property
    def trouble(self) -> str | None:
        """Why the instances cannot be read as they are now, a sentence; then they are as they were before."""
        return self._store.trouble

    def all(self) -> tuple[Instance, ...]:
        return self._parse(self._store.read()).instances

    def get(self, id_or_name: str) -> Instance | None:
        """By its id, or by its name in any case."""
        entry = self._parse(self._store.read()).find(id_or_name)
        return None if entry is None else entry.instance

    def require(self, id_or_name: str) -> Instance:
        """Raises: InstanceNotFound."""
        return self._parse(self._store.read()).require(id_or_name).instance

    def listen(self, callback: Callable[[], None]) -> None:
        """It is called with no lock held: by who made the change, or by a thread of its own."""
        self._store.listen(callback)

    def add(self, fields: Document) -> Instance:
        """Raises: InvalidRequest, InstancesFileBroken, StoreError; so do the others."""
        refuse_unknown(fields)
        added: list[str] = []

        def with_new(content: RegistryContent) -> RegistryContent:
            taken = {name for each in content.instances for name in (each.id, each.name.casefold())}
            added[:] = [new_id(read_instance(fields, "").name, taken)]
            return content.with_entry(added[0], fields)

        return self._update(with_new).require(added[0]).instance

    def change(self, id_or_name: str, fields: Document) -> Instance:
        """A field that is null is as usual again. Raises: InstanceNotFound."""
        refuse_unknown(fields)
        changed: list[str] = []

        def with_changed(content: RegistryContent) -> RegistryContent:
            entry = content.require(id_or_name)
            changed[:] = [entry.instance.id]
            return content.with_entry(entry.instance.id, {**entry.raw, **fields})

        return self._update(with_changed).require(changed[0]).instance

    def remove(self, id_or_name: str) -> Instance:
        """Raises: InstanceNotFound."""
        removed: list[Instance] = []

        def without(content: RegistryContent) -> RegistryContent:
            removed[:] = [content.require(id_or_name).instance]
            return content.without(removed[0].id)

        self._update(without)
        return removed[0]

    def _update(self, change: Callable[[RegistryContent], RegistryContent]) -> RegistryContent:
        updated = self._store.update(lambda documents: change(self._parse(documents)).documents)
        return self._parse(updated)

    def _parse(self, documents: InstanceDocuments) -> RegistryContent:
        """Once, as long as nothing changes."""
        known = self._parsed
        if known[0] is not documents:
            known = self._parsed = (documents, content_of(documents))
        return known[1]
