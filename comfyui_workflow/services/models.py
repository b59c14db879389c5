"""The model files on an instance: lists, and from where new ones may come."""

from urllib.parse import quote

from comfyui_workflow.parsing.untrusted import is_safe_name
from comfyui_workflow.provisioning.rules import DownloadRules
from comfyui_workflow.runs.model import RunRequest
from comfyui_workflow.runs.target import address_of
from comfyui_workflow.sessions.leases import ConcurrencyLimit, Sessions, lease_session
from comfyui_workflow.sessions.session import InstanceKey

MOST_AT_ONCE = 4
PATIENCE_S = 30.0


class ModelService:
    """Lists models. Thread-safe."""

    def __init__(self, sessions: Sessions, rules: DownloadRules) -> None:
        self.rules = rules
        self._sessions = sessions
        self._limit = ConcurrencyLimit(MOST_AT_ONCE, f"{MOST_AT_ONCE} requests list models just now")

    def by_folder(self, request: RunRequest, *, host_key: str | None = None) -> dict[str, list[str]]:
        """Returns the names of the model files, by ComfyUI's names of their folders (`checkpoints`).

        Raises: InstanceError, ComfyUIError, Stopped; ServerBusy if too many requests list models."""
        key = instance_key(request, host_key)
        with self._limit.taken(), lease_session(self._sessions, key, PATIENCE_S) as session:
            choices = session.client.choices
            folders = [each for each in choices("/models") if isinstance(each, str) and is_safe_name(each)]
            return {folder: _texts(choices(f"/models/{quote(folder, safe='')}")) for folder in folders}


def instance_key(request: RunRequest, host_key: str | None) -> InstanceKey:
    return InstanceKey(
        address=address_of(request.target), comfyui_port=request.comfyui_port, host_key=host_key
    )


def _texts(values: list[object]) -> list[str]:
    return [each for each in values if isinstance(each, str)]
