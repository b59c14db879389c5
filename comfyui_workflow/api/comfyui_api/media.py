"""Input files in the nodes of a prompt: base64, a data URI or a URL in place of a file name.

How it works. Inline content is stored on this server under a name made from its hash. A URL is downloaded
later, by the run, to such a path. The node gets the name, and the run uploads the file to the instance. A
file name stays as it is: ComfyUI says whether it has the file.
"""

import re
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from comfyui_workflow.api.comfyui_api.errors import InvalidPart
from comfyui_workflow.errors import InvalidRequest
from comfyui_workflow.files.file_types import usual_ending
from comfyui_workflow.parsing.base64_text import decoded_base64
from comfyui_workflow.parsing.untrusted import is_safe_name
from comfyui_workflow.runs.credentials import without_secrets
from comfyui_workflow.runs.upload_target import InputDownload, check_storage_url
from comfyui_workflow.services.uploads import Uploads

Node = dict[str, Any]

_DIRECTORY_NODES = ("VHS_LoadImages", "VHS_LoadImagesPath")
_VIDEO_NODES = (
    "LoadVideo",
    "VHS_LoadVideo",
    "VHS_LoadVideoPath",
    "VHS_LoadVideoFFmpegPath",
    "VHS_LoadVideoFFmpeg",
)
_AUDIO_NODES = ("LoadAudio",)
_URL = re.compile(r"(?i)[a-z][a-z0-9+.-]{0,15}://")
_FILE_NAME = re.compile(r"[^\n]{1,1024}?\.[A-Za-z0-9]{2,5}( ?\[(input|output|temp)\])?")
"""Base64 has no dot in it, so a text with an ending is a file name."""
_ENDING = re.compile(r"\.[A-Za-z0-9]{2,5}")
_USUAL_ENDINGS = {"image": ".png", "images": ".png", "video": ".mp4", "audio": ".wav"}
_NAME_LETTERS = 32


@dataclass(kw_only=True)
class PromptMedia:
    """The input files of one prompt, collected while its nodes are read."""

    uploads: Uploads
    check_url: Callable[[str], None]
    """Raises: UrlRefused."""
    paths: dict[str, str] = field(default_factory=dict)
    """Local paths of the files and directories, by the names that the nodes get."""
    downloads: list[InputDownload] = field(default_factory=list)
    secret_urls: dict[str, str] = field(default_factory=dict, repr=False)
    """Complete URLs of those downloads whose URLs have secrets, by the local paths of the files."""
    locations: dict[str, tuple[str, str]] = field(default_factory=dict)
    """What a failed download is called, and its location in the prompt, by the name of the file."""

    def read_node(self, node_id: str, node: Node) -> None:
        """Replaces the input files of a node by names. Raises: InvalidPart, StoreError."""
        inputs, class_type = node["inputs"], node["class_type"]
        for name, what in _media_inputs(class_type, inputs):
            place = _place_of(node_id, name, what)
            with_names = self._directory if isinstance(inputs[name], list) else self._file
            inputs[name] = with_names(inputs[name], place)

    def read_parameter(self, given: str) -> str:
        """Returns the name for the input file of a custom workflow. Raises: InvalidPart, StoreError."""
        return self._file(
            given, _Place(what="image", failure="Failed to download input file", location="input")
        )

    def _file(self, given: str, place: "_Place") -> str:
        return self._stored(given, place, None)

    def _directory(self, given: list[str], place: "_Place") -> str:
        """Stores the files in one directory, and returns its name."""
        digest = sha256("\0".join(given).encode("utf-8", "replace")).hexdigest()
        name, group = digest[:_NAME_LETTERS], secrets.token_hex(8)
        for each in dict.fromkeys(given):
            self._stored(each, place, (name, group))
        return name

    def _stored(self, given: str, place: "_Place", directory: tuple[str, str] | None) -> str:
        try:
            if _URL.match(given):
                return self._downloaded(given, place, directory)
            if directory is None and _FILE_NAME.fullmatch(given) and given[:5].lower() != "data:":
                return _safe_file_name(given)
            return self._decoded(given, place, directory)
        except (InvalidRequest, ValueError) as error:
            raise InvalidPart(f"{place.failure}: {error}", place.location) from error

    def _downloaded(self, url: str, place: "_Place", directory: tuple[str, str] | None) -> str:
        self.check_url(check_storage_url(url))
        ending = PurePosixPath(unquote(urlsplit(url).path)).suffix
        usual = _USUAL_ENDINGS[place.what]
        name = _hashed_name(url.encode(), ending if _ENDING.fullmatch(ending) else usual)
        if self._is_new(name, directory):
            path = self._path(name, directory)
            self.downloads.append(InputDownload(url=without_secrets(url), path=str(path)))
            if self.downloads[-1].url != url:
                self.secret_urls[str(path)] = url
            self.locations[name] = (place.failure, place.location)
            self._add(name, path, directory)
        return name

    def _decoded(self, given: str, place: "_Place", directory: tuple[str, str] | None) -> str:
        content = decoded_base64(given)
        ending = usual_ending(content)
        if ending is None:
            raise ValueError("it is neither a URL nor the base64 of a picture, video or sound")
        name = _hashed_name(content, ending)
        if self._is_new(name, directory) and not self._path(name, directory).exists():
            folder, group = directory or (None, None)
            stored = self.uploads.keep(BytesIO(content), f"{folder}/{name}" if folder else name, group)
            self._add(name, stored, directory)
        return name

    def _path(self, name: str, directory: tuple[str, str] | None) -> Path:
        folder, group = directory or (None, None)
        return self.uploads.path_for_upload(f"{folder}/{name}" if folder else name, group)

    def _is_new(self, name: str, directory: tuple[str, str] | None) -> bool:
        return directory is not None or name not in self.paths

    def _add(self, name: str, path: Path, directory: tuple[str, str] | None) -> None:
        if directory is None:
            self.paths[name] = str(path)
        else:
            self.paths[directory[0]] = f"{path.parent}/"


@dataclass(frozen=True, kw_only=True)
class _Place:
    what: str
    failure: str
    """The beginning of the message if the file cannot be used."""
    location: str
    """Where the request names the file."""


def _place_of(node_id: str, name: str, what: str) -> _Place:
    location = f"prompt.{node_id}.inputs.{'video' if what == 'video' else name}"
    return _Place(what=what, failure=f"Failed to download {what} for node {node_id}", location=location)


def _media_inputs(class_type: str, inputs: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields the inputs of a node that name files, and what comfyui-api calls them."""
    if class_type in _DIRECTORY_NODES:
        given = inputs.get("directory")
        if isinstance(given, list) and given and all(isinstance(each, str) for each in given):
            yield "directory", "images"
    names = {"image": "image"}
    if class_type in _VIDEO_NODES:
        names = {"video": "video", "file": "video"}
    elif class_type in _AUDIO_NODES:
        names = {"audio": "audio"}
    yield from ((name, what) for name, what in names.items() if inputs.get(name) and _is_text(inputs[name]))


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _safe_file_name(given: str) -> str:
    """Raises: ValueError for a path of the host."""
    if not all(map(is_safe_name, re.split(r"[/\\]", given))):
        raise ValueError("a path of this machine or of the instance is not accepted")
    return given


def _hashed_name(content: bytes, ending: str) -> str:
    return f"{sha256(content).hexdigest()[:_NAME_LETTERS]}{ending.lower()}"
