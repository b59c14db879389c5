"""Models that the nodes of a prompt name by URL. The run downloads them on its instance, as a run with
`provision`, and the node gets the name of the file.

How it works. Which inputs of a class name models is known when the run is on its instance. Of ComfyUI's own
loaders it is known before, so a URL that may not be downloaded is refused at once.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from comfyui_workflow.api.comfyui_api.errors import InvalidPart
from comfyui_workflow.errors import InvalidRequest
from comfyui_workflow.parsing.storage_urls import is_storage_url
from comfyui_workflow.provisioning.model_urls import plain_url, recorded_url
from comfyui_workflow.provisioning.rules import DownloadRules
from comfyui_workflow.workflows.model_sources import direct_url, is_url, known_folder, name_of_url

_LOADERS = frozenset(
    {
        "CheckpointLoader",
        "CheckpointLoaderSimple",
        "unCLIPCheckpointLoader",
        "LoraLoader",
        "LoraLoaderModelOnly",
        "VAELoader",
        "ControlNetLoader",
        "DiffControlNetLoader",
        "UNETLoader",
        "CLIPLoader",
        "DualCLIPLoader",
        "CLIPVisionLoader",
        "StyleModelLoader",
        "GLIGENLoader",
        "UpscaleModelLoader",
    }
)
_LOADERS_OF_DIRECTORIES = frozenset({"DiffusersLoader"})


@dataclass(kw_only=True)
class PromptModels:
    """The models of one prompt, collected while its nodes are read."""

    rules: DownloadRules
    secret_urls: dict[str, str] = field(default_factory=dict, repr=False)
    """Complete URLs, by the URLs without their secrets."""
    locations: dict[str, tuple[str, str]] = field(default_factory=dict)
    """What a failed download is called, and its location in the prompt, by the name of the file."""

    def read_node(self, node_id: str, node: Mapping[str, Any]) -> None:
        """Takes the secrets out of the URLs of models. Raises: InvalidPart."""
        class_type, inputs = node["class_type"], node["inputs"]
        for name, given in inputs.items():
            if not isinstance(given, str) or not is_storage_url(given):
                continue
            failure = f"Failed to download model for node {node_id}"
            location = f"prompt.{node_id}.inputs.{name}"
            if class_type in _LOADERS_OF_DIRECTORIES:
                raise InvalidPart(
                    f"{failure}: a {class_type} needs a directory, and only single files are downloaded: put "
                    "it on the instance yourself",
                    location,
                )
            if class_type in _LOADERS or known_folder(class_type, name) is not None:
                inputs[name] = self._checked(given, failure, location)
            if is_url(inputs[name]):
                self.locations[name_of_url(direct_url(inputs[name]))] = (failure, location)

    def _checked(self, given: str, failure: str, location: str) -> str:
        """Returns the URL as it may be recorded. Raises: InvalidPart."""
        try:
            whole = plain_url(given)
        except InvalidRequest as error:
            raise InvalidPart(f"{failure}: {error}", location) from error
        url = recorded_url(whole)
        refusal = self.rules.refusal(url, name_of_url(url))
        if refusal is not None:
            raise InvalidPart(f"{failure}: {refusal}", location)
        if url != whole:
            self.secret_urls[url] = whole
        return url
