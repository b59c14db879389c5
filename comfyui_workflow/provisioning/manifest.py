"""A manifest: what a machine should have, as comfyui-api reads it from YAML or JSON.

    apt: [ffmpeg]
    pip: [opencv-python-headless==4.10.0.84]
    custom_nodes:
      - comfyui-kjnodes                                 an id in ComfyUI's registry, also `id@1.2.3`
      - https://github.com/owner/repo/tree/v1.2         a git repository: see `git_urls`
    models:
      before_start: [{url: https://..., local_path: checkpoints/x.safetensors, sha256: ...}]
      after_start: [...]

Everything is optional. `read_manifest` checks all of it, and opens nothing.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, TypeVar

import yaml

from comfyui_workflow.errors import InvalidRequest
from comfyui_workflow.parsing.fields import refuse_unknown_fields
from comfyui_workflow.parsing.untrusted import read_json, shown
from comfyui_workflow.provisioning.git_urls import read_git_url
from comfyui_workflow.provisioning.model_urls import plain_url, recorded_url
from comfyui_workflow.runs.credentials import without_secrets
from comfyui_workflow.workflows.model_sources import is_safe_path
from comfyui_workflow.workflows.node_packs import NodePack

LARGEST_BYTES = 1024 * 1024
MOST_ENTRIES = 500
"""In all lists together."""
DEEPEST = 10
MOST_VALUES = 20_000
LONGEST_ENTRY = 500
_FIELDS = ("apt", "pip", "custom_nodes", "models")
_MODEL_FIELDS = ("url", "local_path", "sha256")
_TIMES = ("before_start", "after_start")
_APT = re.compile(
    r"[a-z0-9][a-z0-9+.-]*[a-z0-9+](:[a-z0-9]+)?(=[A-Za-z0-9][A-Za-z0-9.+:~-]*|/[a-z0-9][a-z0-9-]*)?"
)
"""A minus sign at the end of a name would remove the package."""
_PIP = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\s*(\[[A-Za-z0-9._, -]*\])?\s*([(<>=!~;][^@]*)?")
_PIP_URL = re.compile(
    r"([A-Za-z0-9][A-Za-z0-9._-]*\s*(\[[A-Za-z0-9._, -]*\])?\s*@\s*)?((git\+)?https?://\S+)"
)
_PACK = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,99})(@[A-Za-z0-9][A-Za-z0-9._+-]{0,99})?")
_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,38}/[A-Za-z0-9._-]{1,100}(@.+)?")
_NEWEST = ("latest", "nightly")
_SHA256 = re.compile("[0-9a-fA-F]{64}")

Entry = TypeVar("Entry")


@dataclass(frozen=True, kw_only=True)
class WantedPack:
    """A node pack. `pack` is its name for the settings; `url` is None if the registry tells it."""

    given: str
    pack: NodePack
    name: str
    """Name of its directory."""
    url: str | None = None
    refs: tuple[str, ...] = ()
    """Branches, tags or commits to try in this order. Empty: any version will do."""


@dataclass(frozen=True, kw_only=True)
class WantedPackage:
    """A requirement of pip. `url` is where it is installed from, without a ref; None: an index."""

    requirement: str
    url: str | None = None


@dataclass(frozen=True, kw_only=True)
class WantedModel:
    """`url` has no secrets. `local_path` is a path in ComfyUI's directory of models, absolute or not."""

    url: str
    local_path: str
    sha256: str | None = None
    is_before_start: bool = True


@dataclass(frozen=True, kw_only=True)
class Manifest:
    apt: tuple[str, ...] = ()
    pip: tuple[WantedPackage, ...] = ()
    packs: tuple[WantedPack, ...] = ()
    models: tuple[WantedModel, ...] = ()
    """Those of `before_start` first."""
    secret_urls: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Complete URLs, by the URLs without their secrets."""


def read_manifest(given: object) -> Manifest:
    """Parses a manifest: its text in YAML or JSON, or the object in it. Raises: InvalidRequest."""
    found = read_text(given) if isinstance(given, str) else given
    if found is None:
        found = {}
    if not isinstance(found, dict):
        raise InvalidRequest(f"The manifest must be an object with the fields {', '.join(_FIELDS)}")
    refuse_unknown_fields(map(str, found), _FIELDS, "a manifest")
    models, secret_urls = _models(found.get("models"))
    manifest = Manifest(
        apt=_entries(found, "apt", _apt),
        pip=_entries(found, "pip", _package),
        packs=_entries(found, "custom_nodes", _pack),
        models=models,
        secret_urls=secret_urls,
    )
    count = sum(map(len, (manifest.apt, manifest.pip, manifest.packs, manifest.models)))
    if count > MOST_ENTRIES:
        raise InvalidRequest(f"The manifest has {count} entries; it may have {MOST_ENTRIES}")
    _refuse_twice([each.name.lower() for each in manifest.packs], "custom_nodes")
    _refuse_twice([each.local_path for each in manifest.models], "models")
    return manifest


def read_text(text: str) -> Any:
    """Parses YAML, of which JSON is a part. Raises: InvalidRequest."""
    if len(text) > LARGEST_BYTES or len(text.encode("utf-8", "replace")) > LARGEST_BYTES:
        raise InvalidRequest(f"The manifest is larger than {LARGEST_BYTES // 1024} KB")
    if text.lstrip("\ufeff \t\r\n").startswith("{"):
        try:
            return _checked_depth(read_json(text.lstrip("\ufeff")), DEEPEST)
        except ValueError:  # YAML may begin so too, and has the better messages
            pass
    try:
        return yaml.load(text.lstrip("\ufeff"), Loader=_Loader)  # noqa: S506 - a safe loader with limits
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f" in line {mark.line + 1}" if mark is not None else ""
        raise InvalidRequest(f"The manifest is not valid YAML: {error.problem}{place}") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        reason = " ".join(shown(error).split())
        raise InvalidRequest(f"The manifest is not valid YAML: {reason}") from error


class _Loader(yaml.SafeLoader):
    """Loads plain data, with limits: an alias stands for a copy of any size, so there are none."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0
        self._values = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(None, None, "aliases (*name) are not supported", event.start_mark)
        self._depth += 1
        self._values += 1
        if self._depth > DEEPEST or self._values > MOST_VALUES:
            raise yaml.MarkedYAMLError(None, None, "too deep or too many values", event.start_mark)
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen = set[str]()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(None, None, "a field must have a name", key.start_mark)
            if key.value in seen:
                raise yaml.MarkedYAMLError(None, None, f"{shown(key.value)} is there twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def _checked_depth(value: Any, left: int) -> Any:
    if left == 0:
        raise ValueError("nested too deeply")
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _checked_depth(each, left - 1)
    return value


def _list(found: Mapping[str, Any], name: str, where: str) -> list[Any]:
    value = found.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise InvalidRequest(f"{where} must be a list")
    return value


def _entries(found: Mapping[str, Any], name: str, read: Callable[[str, str], Entry]) -> tuple[Entry, ...]:
    entries = []
    for number, each in enumerate(_list(found, name, name)):
        where = f"{name}[{number}]"
        if not isinstance(each, str):
            raise InvalidRequest(f"{where} must be a text: put {shown(each)} between quotation marks")
        entries.append(read(_printable(each.strip(), where), where))
    return tuple(dict.fromkeys(entries))


def _printable(text: str, where: str) -> str:
    if not text or len(text) > LONGEST_ENTRY or not text.isprintable():
        raise InvalidRequest(f"{where} must be one line of at most {LONGEST_ENTRY} characters")
    return text


def _apt(given: str, where: str) -> str:
    if not _APT.fullmatch(given):
        raise InvalidRequest(f"{where}: {given!r} is not the name of a Debian package")
    return given


def _package(given: str, where: str) -> WantedPackage:
    """Parses a requirement. An option of pip is none, and neither is a file on the machine."""
    if "$" in given:  # pip would put variables of the environment in
        raise InvalidRequest(f"{where}: variables are not supported")
    found = _PIP_URL.fullmatch(given)
    if found:
        return WantedPackage(requirement=given, url=_package_url(found[3], where))
    if not _PIP.fullmatch(given):
        raise InvalidRequest(
            f"{where}: {without_secrets(given)!r} is not a requirement such as numpy==2.1.0 or a URL"
        )
    return WantedPackage(requirement=given)


def _package_url(url: str, where: str) -> str:
    if url.startswith("git+"):
        return read_git_url(url, where).url
    plain = url.partition("#")[0]
    if without_secrets(plain) != plain:
        raise InvalidRequest(f"{where}: its URL contains a secret, which pip would show; leave it out")
    return plain


def _pack(given: str, where: str) -> WantedPack:
    if "://" in given:
        return _git_pack(given, given, where)
    found = _PACK.fullmatch(given)
    if found:
        version = (found[2] or "@latest")[1:]
        refs = () if version in _NEWEST else (f"v{version}", version)
        pack = NodePack(registry_id=found[1], repository=None, version=refs[1] if refs else None)
        return WantedPack(given=given, pack=pack, name=found[1], refs=refs)
    if _REPOSITORY.fullmatch(given):
        return _git_pack(given, f"https://github.com/{given}", where)
    raise InvalidRequest(
        f"{where}: {without_secrets(given)!r} is neither an id in ComfyUI's registry nor the URL of a "
        "repository"
    )


def _git_pack(given: str, url: str, where: str) -> WantedPack:
    source = read_git_url(url, where)
    if not _PACK.fullmatch(source.name) or ".." in source.name:
        raise InvalidRequest(f"{where}: {source.name!r} is not the name of a node pack")
    return WantedPack(
        given=given.partition("?")[0].partition("#")[0],
        pack=NodePack(registry_id=None, repository=source.repository),
        name=source.name,
        url=source.url,
        refs=source.refs,
    )


def _models(given: object) -> tuple[tuple[WantedModel, ...], dict[str, str]]:
    if given is None:
        return (), {}
    if not isinstance(given, dict):
        raise InvalidRequest(f"models must be an object with the fields {' and '.join(_TIMES)}")
    refuse_unknown_fields(map(str, given), _TIMES, "models")
    found, secret_urls = [], {}
    for time in _TIMES:
        for number, each in enumerate(_list(given, time, f"models.{time}")):
            model, whole = _model(each, f"models.{time}[{number}]", is_before_start=time == _TIMES[0])
            found.append(model)
            if whole != model.url:
                secret_urls[model.url] = whole
    return tuple(found), secret_urls


def _model(given: object, where: str, *, is_before_start: bool) -> tuple[WantedModel, str]:
    if not isinstance(given, dict):
        raise InvalidRequest(f"{where} must be an object with url and local_path")
    refuse_unknown_fields(map(str, given), _MODEL_FIELDS, where)
    url, path, sha256 = (given.get(name) for name in _MODEL_FIELDS)
    if not isinstance(url, str) or not isinstance(path, str):
        raise InvalidRequest(f"{where} needs a url and a local_path, both texts")
    if sha256 is not None and not (isinstance(sha256, str) and _SHA256.fullmatch(sha256)):
        raise InvalidRequest(f"{where}.sha256 must have 64 hexadecimal digits")
    try:
        whole = plain_url(_of_hugging_face(url))
    except InvalidRequest as error:
        raise InvalidRequest(f"{where}.url: {error}") from error
    local_path = _printable(path, f"{where}.local_path")
    if not is_safe_path(local_path.removeprefix("/")) or len(PurePosixPath(local_path).parts) < 2:
        raise InvalidRequest(
            f"{where}.local_path must be a path such as checkpoints/x.safetensors, without .. and without "
            "hidden names"
        )
    model = WantedModel(
        url=recorded_url(whole),
        local_path=local_path,
        sha256=sha256.lower() if sha256 else None,
        is_before_start=is_before_start,
    )
    return model, whole


def _of_hugging_face(url: str) -> str:
    """Returns the address of a file that is given as `hf://owner/repository/path`."""
    found = re.fullmatch(r"hf://([^/]+/[^/@]+)(?:@([^/]+))?/(.+)", url)
    return f"https://huggingface.co/{found[1]}/resolve/{found[2] or 'main'}/{found[3]}" if found else url


def _refuse_twice(names: Sequence[str], where: str) -> None:
    for name in names:
        if names.count(name) > 1:
            raise InvalidRequest(f"{where}: {name} is there twice")
