"""The directory of the instance into which a model belongs."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from comfyui_workflow.errors import ProvisionFailed
from comfyui_workflow.parsing.untrusted import is_safe_name, shown
from comfyui_workflow.sessions.session import ComfyUISession
from comfyui_workflow.workflows.model_sources import RENAMED_FOLDERS, LackingModel, is_safe_path

_NOT_FOR_MODELS = frozenset({"custom_nodes"})
"""ComfyUI executes what is in there."""
_ANCHORS = ("checkpoints", "vae", "loras")


class ModelFolders:
    """The directories of models of one ComfyUI, as it tells them itself."""

    def __init__(
        self,
        told: Mapping[str, Sequence[str]],
        input_dir: str | None,
        names_in: Callable[[str], Sequence[Any]],
    ) -> None:
        """`told`: directories by kind. `names_in` returns the models of a kind that ComfyUI lists, and the
        kinds for ''."""
        self._told = told
        self._input_dir = input_dir
        self._names_in = names_in

    def directory_for(self, lacking: LackingModel) -> str:
        """Returns the absolute directory of the kind of model; the first one, as ComfyUI itself does. Raises:
        ProvisionFailed."""
        folder = lacking.folder or self._folder_with(lacking.choices)
        if folder is None:
            raise ProvisionFailed(
                f"Nothing tells into which folder {shown(lacking.name)} of node {lacking.node_id} "
                f"({lacking.class_type}) belongs: put it there yourself"
            )
        return self.directory_of(folder)

    def directory_of(self, folder: str) -> str:
        """Returns the absolute directory of a kind of model. Raises: ProvisionFailed."""
        if folder in _NOT_FOR_MODELS or not is_safe_path(folder):
            raise ProvisionFailed(f"{shown(folder)} is no folder for models")
        known = self._told.get(folder)
        return known[0] if known else str(self._base() / folder)

    def place_of(self, path: str) -> tuple[str, str]:
        """Returns the absolute directory, and the name below it, for a path in a directory of models:
        absolute, or `checkpoints/x.safetensors`. The path may be that of another machine: what counts is what
        follows `models/`. Raises: ProvisionFailed."""
        parts = PurePosixPath(path).parts
        for kind, directories in self._told.items():
            for directory in directories if kind not in _NOT_FOR_MODELS else ():
                begin = PurePosixPath(directory).parts
                if parts[: len(begin)] == begin and len(parts) > len(begin):
                    return directory, "/".join(parts[len(begin) :])
        behind = [parts[at + 1 :] for at, each in enumerate(parts) if each == "models"]
        known = [each for each in behind if each and each[0] in self._told]
        below = parts if parts[0] in self._told else [*known, *behind, parts][0]
        if len(below) < 2 or below[0] == "/":
            raise ProvisionFailed(f"{shown(path)} is in no folder of models: give checkpoints/x.safetensors")
        folder = RENAMED_FOLDERS.get(below[0], below[0]) if below[0] not in self._told else below[0]
        return self.directory_of(folder), "/".join(below[1:])

    def kinds(self) -> list[str]:
        """Returns ComfyUI's names of the kinds of models."""
        known = set(self._told or filter(_is_name, self._names_in("")))
        return sorted(known - _NOT_FOR_MODELS)

    def _folder_with(self, choices: Sequence[Any]) -> str | None:
        """Returns the kind whose models are the choices of an input."""
        wanted = {each for each in choices if isinstance(each, str)}
        best, most = None, 0
        for kind in self._told if wanted else ():
            if kind in _NOT_FOR_MODELS:
                continue
            names = {each for each in self._names_in(kind) if isinstance(each, str)}
            if names <= wanted and len(names) > most:
                best, most = kind, len(names)
        return best

    def _base(self) -> PurePosixPath:
        """Returns the directory `models`."""
        for kind in _ANCHORS:
            known = self._told.get(kind)
            if known and PurePosixPath(known[0]).name == kind:
                return PurePosixPath(known[0]).parent
        if self._input_dir is not None:
            return PurePosixPath(self._input_dir).parent / "models"
        raise ProvisionFailed("ComfyUI does not tell where its models are")


def folders_of(session: ComfyUISession) -> ModelFolders:
    """Raises: the errors of ComfyUI."""
    client = session.client
    return ModelFolders(
        client.model_directories(),
        session.directories().input_dir,
        lambda kind: client.choices(f"/models/{kind}" if kind else "/models"),
    )


def _is_name(value: object) -> bool:
    return isinstance(value, str) and is_safe_name(value)
