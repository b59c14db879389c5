"""Registry of the named instances: reads, adds, changes and removes them by id or name.

InstanceRegistry(store)
    load()                                   raises ConfigurationError if the entries cannot be read
    all(), get(id_or_name), require(id_or_name), trouble
    add(fields), change(id_or_name, fields), remove(id_or_name)
    listen(callback)                         called after each change, also one made in the file
"""

from collections.abc import Callable

from comfyui_workflow.comfyui.login import LOGIN_FIELDS, Login, read_login
from comfyui_workflow.instances.entries import RegistryContent, content_of
from comfyui_workflow.instances.model import Instance
from comfyui_workflow.instances.schema import is_id, new_id, read_instance, refuse_unknown
from comfyui_workflow.stores.base import Document, InstanceDocuments, InstanceStore, LoginStore


class InstanceRegistry:
    """Thread-safe."""

    def __init__(self, store: InstanceStore, logins: LoginStore) -> None:
        self._store = store
        self._logins = logins
        self._parsed = (InstanceDocuments(), RegistryContent())

    def load(self) -> None:
        """Raises: ConfigurationError."""
        self._store.open()

    @property
    def trouble(self) -> str | None:
        """Sentence that says why the current entries cannot be read, else None. The last valid entries stay
        in use."""
        return self._store.trouble

    def all(self) -> tuple[Instance, ...]:
        return self._parse(self._store.read()).instances

    def get(self, id_or_name: str) -> Instance | None:
        """Returns the instance with that id, or with that name in any case; None if there is none."""
        entry = self._parse(self._store.read()).find(id_or_name)
        return None if entry is None else entry.instance

    def require(self, id_or_name: str) -> Instance:
        """Raises: InstanceNotFound."""
        return self._parse(self._store.read()).require(id_or_name).instance

    def login_kind(self, instance_id: str) -> str | None:
        """Returns `token` or `password`; None if the instance has no login. The login itself is not shown."""
        login = self._logins.get(instance_id)
        return None if login is None else login.kind

    def listen(self, callback: Callable[[], None]) -> None:
        """Registers a callback for changes. It is called with no lock held, in the thread that made the
        change or in a thread of the store."""
        self._store.listen(callback)

    def add(self, fields: Document, wanted_id: str | None = None) -> Instance:
        """Adds an instance. It gets the wanted id if it may, else one that is made from its name. `change`
        and `remove` raise the same errors. Raises: InvalidRequest, InstancesFileBroken, StoreError."""
        login, fields = _split_login(fields)
        added: list[str] = []

        def with_new(content: RegistryContent) -> RegistryContent:
            taken = {name for each in content.instances for name in (each.id, each.name.casefold())}
            own = new_id(read_instance(fields, "").name, taken)
            added[:] = [wanted_id if wanted_id and is_id(wanted_id) and wanted_id not in taken else own]
            return content.with_entry(added[0], fields)

        instance = self._update(with_new).require(added[0]).instance
        self._keep_login(instance.id, login)
        return instance

    def change(self, id_or_name: str, fields: Document) -> Instance:
        """Changes the given fields; null restores the default of a field. Raises: InstanceNotFound."""
        has_login = any(name in fields for name in LOGIN_FIELDS)
        login, fields = _split_login(fields)
        changed: list[str] = []

        def with_changed(content: RegistryContent) -> RegistryContent:
            entry = content.require(id_or_name)
            changed[:] = [entry.instance.id]
            return content.with_entry(entry.instance.id, {**entry.raw, **fields})

        instance = self._update(with_changed).require(changed[0]).instance
        if has_login:
            self._keep_login(instance.id, login)
        return instance

    def remove(self, id_or_name: str) -> Instance:
        """Raises: InstanceNotFound."""
        removed: list[Instance] = []

        def without(content: RegistryContent) -> RegistryContent:
            removed[:] = [content.require(id_or_name).instance]
            return content.without(removed[0].id)

        self._update(without)
        self._logins.forget(removed[0].id)
        return removed[0]

    def _keep_login(self, instance_id: str, login: Login | None) -> None:
        """Replaces the login. An earlier instance with this id may have left one."""
        if login is None:
            self._logins.forget(instance_id)
        else:
            self._logins.put(instance_id, login)

    def _update(self, change: Callable[[RegistryContent], RegistryContent]) -> RegistryContent:
        updated = self._store.update(lambda documents: change(self._parse(documents)).documents)
        return self._parse(updated)

    def _parse(self, documents: InstanceDocuments) -> RegistryContent:
        """Parses the documents, or returns the cached result if they have not changed."""
        known = self._parsed
        if known[0] is not documents:
            known = self._parsed = (documents, content_of(documents))
        return known[1]


def _split_login(fields: Document) -> tuple[Login | None, Document]:
    """Returns the login, and the other fields, which are stored in the file of the instances.
    Raises: InvalidRequest."""
    others = {name: value for name, value in fields.items() if name not in LOGIN_FIELDS}
    refuse_unknown(others)
    return read_login(fields), others
