"""What a manifest means for one machine: a pure comparison of what is wanted with what is there."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from comfyui_workflow.parsing.untrusted import as_text, shown
from comfyui_workflow.provisioning.manifest import Manifest, WantedModel, WantedPack
from comfyui_workflow.provisioning.sizes import size_text


class Kind(StrEnum):
    APT = "apt"
    PIP = "pip"
    PACK = "custom_node"
    MODEL = "model"


class Action(StrEnum):
    NONE = "none"
    """It is there."""
    INSTALL = "install"
    UPDATE = "update"
    DOWNLOAD = "download"
    REFUSED = "refused"


@dataclass(frozen=True, kw_only=True)
class ResolvedPack:
    wanted: WantedPack
    url: str | None
    refusal: str | None = None


@dataclass(frozen=True, kw_only=True)
class ResolvedModel:
    """`directory` is absolute; `name` is below it."""

    wanted: WantedModel
    directory: str = ""
    name: str = ""
    refusal: str | None = None

    @property
    def path(self) -> str:
        return f"{self.directory}/{self.name}"


@dataclass(frozen=True, kw_only=True)
class PackState:
    """A pack on the machine. `path` is None if it is not there."""

    path: str | None = None
    commit: str | None = None
    url: str | None = None
    version: str | None = None
    is_right: bool = False
    trouble: str | None = None


@dataclass(frozen=True, kw_only=True)
class FileState:
    """A file on the machine. `size` is None if it is not there; `sha256`, if it was not read."""

    size: int | None = None
    time_ns: int | None = None
    sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is there, by what the manifest calls it; files by their paths."""

    apt: Mapping[str, str | None] = field(default_factory=dict)
    pip: Mapping[str, str | None] = field(default_factory=dict)
    packs: Mapping[str, PackState] = field(default_factory=dict)
    files: Mapping[str, FileState] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Item:
    """One entry of the manifest. `found`: what is there of it; `reason`: why it is refused."""

    kind: Kind
    name: str
    action: Action
    found: str | None = None
    reason: str | None = None
    is_before_start: bool = True

    def document(self) -> dict[str, Any]:
        return {
            "kind": self.kind.value,
            "name": self.name,
            "action": self.action.value,
            "found": self.found,
            "reason": self.reason,
        }


@dataclass(frozen=True, kw_only=True)
class Plan:
    items: tuple[Item, ...]
    packs: tuple[ResolvedPack, ...]
    models: tuple[ResolvedModel, ...]

    def to_do(self, kind: Kind) -> list[Item]:
        return [each for each in self.items if each.kind is kind and each.action is not Action.NONE]

    @property
    def refused(self) -> list[Item]:
        return [each for each in self.items if each.action is Action.REFUSED]

    @property
    def is_done(self) -> bool:
        return all(each.action is Action.NONE for each in self.items)

    @property
    def restarts(self) -> bool:
        """True if something is to be installed that ComfyUI loads only when it starts."""
        return bool(self.to_do(Kind.PIP) or self.to_do(Kind.PACK))


def read_facts(found: Sequence[Mapping[str, Any]]) -> Facts:
    """Reads what the machine tells; it is not trusted."""
    apt, pip = dict[str, str | None](), dict[str, str | None]()
    packs, files = dict[str, PackState](), dict[str, FileState]()
    for each in found:
        names = {kind: as_text(each.get(kind)) for kind in ("apt", "pip", "pack", "file")}
        if names["apt"] is not None:
            apt[names["apt"]] = _text(each, "version")
        elif names["pip"] is not None:
            pip[names["pip"]] = _text(each, "version")
        elif names["pack"] is not None:
            packs[names["pack"]] = _pack_state(each)
        elif names["file"] is not None:
            size, time_ns = _count(each.get("size")), _count(each.get("time"))
            files[names["file"]] = FileState(size=size, time_ns=time_ns, sha256=_text(each, "sha256"))
    return Facts(apt=apt, pip=pip, packs=packs, files=files)


def make_plan(
    manifest: Manifest,
    facts: Facts,
    *,
    packs: Sequence[ResolvedPack],
    models: Sequence[ResolvedModel],
    refused_packages: Mapping[str, str],
) -> Plan:
    """`refused_packages`: reasons, by requirement of pip."""
    items = [
        *(_package(Kind.APT, each, facts.apt.get(each)) for each in manifest.apt),
        *_requirements(manifest, facts, refused_packages),
        *(_pack(each, facts.packs.get(each.wanted.name, PackState())) for each in packs),
        *(_model(each, facts.files.get(each.path, FileState())) for each in models),
    ]
    return Plan(items=tuple(items), packs=tuple(packs), models=tuple(models))


def _requirements(manifest: Manifest, facts: Facts, refused: Mapping[str, str]) -> Iterator[Item]:
    for each in manifest.pip:
        reason = refused.get(each.requirement)
        if reason is not None:
            yield Item(kind=Kind.PIP, name=each.requirement, action=Action.REFUSED, reason=reason)
        else:
            yield _package(Kind.PIP, each.requirement, facts.pip.get(each.requirement))


def _package(kind: Kind, name: str, version: str | None) -> Item:
    action = Action.INSTALL if version is None else Action.NONE
    return Item(kind=kind, name=name, action=action, found=version)


def _pack(resolved: ResolvedPack, state: PackState) -> Item:
    name, reason = resolved.wanted.given, resolved.refusal
    if state.is_right:
        return Item(kind=Kind.PACK, name=name, action=Action.NONE, found=state.version)
    reason = reason or state.trouble
    if reason is not None:
        return Item(kind=Kind.PACK, name=name, action=Action.REFUSED, found=state.version, reason=reason)
    action = Action.INSTALL if state.path is None else Action.UPDATE
    return Item(kind=Kind.PACK, name=name, action=action, found=state.version)


def _model(resolved: ResolvedModel, state: FileState) -> Item:
    wanted = resolved.wanted
    name = resolved.path if resolved.directory else wanted.local_path
    item = {"kind": Kind.MODEL, "name": name, "is_before_start": wanted.is_before_start}
    if resolved.directory and state.size is not None:
        found = size_text(state.size)
        if wanted.sha256 in (None, state.sha256):
            return Item(**item, action=Action.NONE, found=found)  # type: ignore[arg-type]
        reason = "it is there with other content (SHA-256); remove it first"
        return Item(**item, action=Action.REFUSED, found=found, reason=reason)  # type: ignore[arg-type]
    if resolved.refusal is not None:
        return Item(**item, action=Action.REFUSED, reason=resolved.refusal)  # type: ignore[arg-type]
    return Item(**item, action=Action.DOWNLOAD)  # type: ignore[arg-type]


def _pack_state(told: Mapping[str, Any]) -> PackState:
    return PackState(
        path=_text(told, "path"),
        commit=_text(told, "commit"),
        url=_text(told, "url"),
        version=_text(told, "version"),
        is_right=told.get("is_right") is True,
        trouble=_text(told, "trouble"),
    )


def _text(told: Mapping[str, Any], name: str) -> str | None:
    value = as_text(told.get(name))
    return shown(value) if value else None


def _count(value: object) -> int | None:
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63
    return value if is_count else None  # type: ignore[return-value]
