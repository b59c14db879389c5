"""Models that the nodes of a prompt name by URL. The run downloads them on its instance, as a run with
`provision`, and the node gets the name of the file.

How it works. Which inputs of a class name models is known when the run is on its instance. Of ComfyUI's own
loaders it is known before, so a URL that may not be downloaded is refused at once.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from comfyui_workflow.api.comfyui_api.errors import InvalidPart
from comfyui_workflow.parsing.storage_urls import is_storage_url
from comfyui_workflow.provisioning.rules import DownloadRules
from comfyui_workflow.runs.credentials import without_secrets
from comfyui_workflow.workflows.model_sources import (
    LONGEST_URL,
    direct_url,
    is_url,
    key_of_url,
    known_folder,
    name_of_url,
)

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

    def _checked(self, url: str, failure: str, location: str) -> str:
        """Returns the URL as it may be recorded. Raises: InvalidPart."""
        scheme, mark, rest = url.partition("://")
        url = direct_url(f"{scheme.lower()}{mark}{rest}".partition("#")[0])
        if not is_url(url):
            raise InvalidPart(
                f"{failure}: the instance downloads only from URLs with https or http, without spaces and of "
                f"at most {LONGEST_URL} characters",
                location,
            )
        shown = _recorded(url)
        refusal = self.rules.refusal(shown, name_of_url(shown))
        if refusal is not None:
            raise InvalidPart(f"{failure}: {refusal}", location)
        if shown != url:
            self.secret_urls[shown] = url
        return shown


def _recorded(url: str) -> str:
    """Returns the URL without its secrets. What is left out may tell two models apart, so a hash of the whole
    URL is added as its fragment."""
    shown = without_secrets(url)
    return url if shown == url else f"{shown}#{key_of_url(url)[:10]}"
