"""Data of the named instances for a session with a machine: its login, and the ports of other instances."""

from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256

from comfyui_workflow.errors import InvalidAddress
from comfyui_workflow.instances.model import Instance, key_of_instance
from comfyui_workflow.sessions.session import InstanceKey
from comfyui_workflow.stores.base import LoginStore


class NamedMachines:
    """Looks up instances by the address of their machine, so that an ssh string to the same machine gets the
    login too. Thread-safe."""

    def __init__(
        self, logins: LoginStore, resolved: Callable[[InstanceKey], InstanceKey] = lambda key: key
    ) -> None:
        """`resolved` returns the key with the address that an alias of the SSH configuration stands for."""
        self._logins = logins
        self._resolved = resolved
        self._instances: Callable[[], Sequence[Instance]] = tuple

    def follow(self, instances: Callable[[], Sequence[Instance]]) -> None:
        """`instances` returns the current instances. Called once, before the first session is opened."""
        self._instances = instances

    def login(self, key: InstanceKey) -> Mapping[str, str]:
        """Returns headers that pass the login of the machine; none if no login was given for it."""
        here = sorted(self._at(key), key=lambda each: each.comfyui_port != key.comfyui_port)
        found = (self._logins.get(each.id) for each in here)
        return next((login.headers for login in found if login is not None), {})

    def taken_ports(self, key: InstanceKey) -> frozenset[int]:
        """Returns the ports on this machine that belong to other named instances, if the key is that of a
        named one: with one ComfyUI for each GPU, none of them may stand in for another."""
        here = self._at(key)
        if all(self._resolved(key_of_instance(each)) != key for each in here):
            return frozenset()
        return frozenset(each.comfyui_port for each in here) - {key.comfyui_port}

    def id_of(self, key: InstanceKey) -> str:
        """Returns the id of the instance with this key; for any other machine, a name of its address."""
        named = (each.id for each in self._at(key) if each.comfyui_port == key.comfyui_port)
        address = f"{key.address.label} {key.comfyui_port}"
        return next(named, None) or f"address-{sha256(address.encode()).hexdigest()[:16]}"

    def key_of(self, instance_id: str) -> InstanceKey | None:
        """Returns the session key of an instance; None if there is none with this id."""
        found = next((each for each in self._instances() if each.id == instance_id), None)
        return None if found is None else key_of_instance(found)

    def _at(self, key: InstanceKey) -> list[Instance]:
        return [each for each in self._instances() if self._machine(each) == _machine_of(key)]

    def _machine(self, instance: Instance) -> tuple[str, int, str] | None:
        try:
            return _machine_of(self._resolved(key_of_instance(instance)))
        except InvalidAddress:
            return None


def _machine_of(key: InstanceKey) -> tuple[str, int, str]:
    return (key.address.host, key.address.port, key.address.user)
