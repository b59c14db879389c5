"""Installs the node packs that an editor file names and an instance does not have.

The program `packs_program` runs on the instance. ComfyUI finds new packs only when it starts, so it is
restarted afterwards, but never while prompts run or wait there.
"""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from comfyui_workflow.concurrency import CancelToken, ParallelMap
from comfyui_workflow.errors import (
    ComfyUIError,
    ConnectionFailed,
    ProvisionFailed,
    UrlRefused,
    WebError,
)
from comfyui_workflow.parsing.untrusted import as_list, as_object, as_text, read_json, shown
from comfyui_workflow.provisioning.rules import ANY, DownloadRules, origin_of
from comfyui_workflow.safe_http.client import GuardedClient
from comfyui_workflow.sessions.session import ComfyUISession
from comfyui_workflow.workflows.model import GraphRequest
from comfyui_workflow.workflows.node_packs import LackingPack, NodePack, lacking_packs

REGISTRY = "registry"
NONE = "none"
_PROGRAM = Path(__file__).with_name("packs_program.py")
_LARGEST_ANSWER_BYTES = 1024 * 1024
_TIMEOUT_S = 10.0
_AT_ONCE = 8
_QUEUE_EVERY_S = 2.0
_MOST_FOUND = 2000
_START_LIMIT_S = 600.0
_START_EVERY_S = 1.0

Say = Callable[[str], None]
Alone = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True, kw_only=True)
class PackRules:
    """`packs`: ids of the registry and `owner/repository`, `registry` for all of it, `any` for all."""

    packs: tuple[str, ...] = ()
    registry: str = "https://api.comfy.org"
    downloads: DownloadRules = field(default_factory=DownloadRules)

    def is_allowed(self, pack: NodePack) -> bool:
        """A pack with an id is installed from the registry, so its id counts, not the repository that the
        file claims."""
        known = {each.lower() for each in self.packs}
        if ANY in known or (REGISTRY in known and pack.registry_id is not None):
            return True
        return (pack.registry_id or pack.repository or "").lower() in known - {NONE, REGISTRY}


@dataclass(frozen=True, kw_only=True)
class PackOffer:
    """A lacking pack, and the repository that has it."""

    lacking: LackingPack
    url: str | None = None
    refusal: str | None = None
    """The reason why `provision` would not install it; None if it would."""

    def document(self) -> dict[str, Any]:
        """Returns the offer as a JSON object."""
        return {
            "name": self.lacking.pack.name,
            "version": self.lacking.pack.version,
            "class_types": list(self.lacking.class_types),
            "url": self.url,
            "can_provide": self.refusal is None,
            "reason": self.refusal,
        }


@dataclass(frozen=True, kw_only=True)
class PackSource:
    """The repository of a pack; `refusal` is the reason why nothing may be installed from there."""

    url: str | None = None
    refusal: str | None = None


class PackOffers:
    """Finds the repositories of node packs. Thread-safe."""

    def __init__(self, rules: PackRules, web: GuardedClient) -> None:
        self._rules = rules
        self._web = web

    @cached_property
    def _web_of_settings(self) -> GuardedClient:
        """For a registry in the own network, which the settings name."""
        return GuardedClient(may_reach_private=True)

    def of(self, lacking: Sequence[LackingPack]) -> list[PackOffer]:
        """A pack whose repository cannot be found now is refused with the reason."""
        with ParallelMap(_AT_ONCE, CancelToken()).results(self._offer, list(lacking)) as offers:
            return list(offers)

    def source(self, pack: NodePack, url: str | None = None) -> PackSource:
        """Returns where the pack is to be had: at `url`, if something names its repository."""
        if not self._rules.is_allowed(pack):
            name = pack.registry_id or pack.repository
            return PackSource(refusal=f"{name} is not in COMFYUI_WORKFLOW_PROVISION_PACKS")
        try:
            url = url or self._repository(pack)
        except (WebError, UrlRefused) as error:
            return PackSource(refusal=str(error))
        if url is None:
            return PackSource(refusal="the registry does not know its repository")
        return PackSource(url=url, refusal=self._rules.downloads.host_refusal(url))

    def _offer(self, lacking: LackingPack) -> PackOffer:
        source = self.source(lacking.pack)
        return PackOffer(lacking=lacking, url=source.url, refusal=source.refusal)

    def _repository(self, pack: NodePack) -> str | None:
        """Returns the URL of the repository. The registry has precedence: it removes malicious packs."""
        if pack.registry_id is None:
            return f"https://github.com/{pack.repository}"
        registry = self._rules.registry.rstrip("/")
        is_named = origin_of(registry) in self._rules.downloads.origins
        web = self._web_of_settings if is_named else self._web
        answer = web.fetch(f"{registry}/nodes/{pack.registry_id}", _LARGEST_ANSWER_BYTES, _TIMEOUT_S)
        try:
            found = as_object(read_json(answer.content)).get("repository")
        except ValueError:
            return None
        return found if isinstance(found, str) and re.fullmatch(r"https?://[^\s]{1,500}", found) else None


class _PromptArrived(ProvisionFailed):
    """A prompt of somebody else arrived after the queue was looked at."""


class PackProvisioner:
    """Provides the node packs of runs. Thread-safe."""

    def __init__(self, offers: PackOffers) -> None:
        self._offers = offers

    def provide(
        self,
        session: ComfyUISession,
        request: GraphRequest,
        *,
        stop: CancelToken,
        say: Say,
        alone: Alone = nullcontext,
    ) -> list[str]:
        """Installs the packs of the editor file whose classes are missing, and restarts ComfyUI. Returns a
        sentence for each change. It may be repeated after a cut at any point. Within `alone`, no other run of
        this server submits a prompt there: such a prompt would be lost with the old ComfyUI.

        Raises: Stopped; ProvisionFailed; ConnectionFailed; ProgramFailed; the errors of
        ComfyUI."""
        lacking = lacking_packs(request.workflow.editor_file, session.definitions())
        if not lacking:
            return []
        offers = self._offers.of(lacking)
        refused = [each for each in offers if each.refusal is not None]
        if refused:
            reasons = "; ".join(f"{each.lacking.pack.name}: {each.refusal}" for each in refused)
            raise ProvisionFailed(f"Node packs cannot be installed: {shown(reasons)}")
        base = request_base(session)
        done = [_install(session, _install_request(base, each), stop, say) for each in offers]
        with alone():
            done.append(restart_comfyui(session, base, stop, say))
        _check_classes(session, lacking)
        return done


def request_base(session: ComfyUISession) -> dict[str, Any]:
    """Returns what every task needs: which process is ComfyUI, and where its packs are. Raises:
    ProvisionFailed; the errors of ComfyUI."""
    argv = as_object(session.client.system_stats().get("system")).get("argv")
    words = [word for word in as_list(argv) if isinstance(word, str)]
    directories = session.client.model_directories().get("custom_nodes")
    if not words or not directories:
        raise ProvisionFailed("ComfyUI does not tell its command line and where its node packs are")
    return {"argv": words, "directory": directories[0]}


def _install_request(base: Mapping[str, Any], offer: PackOffer) -> dict[str, Any]:
    pack = offer.lacking.pack
    version = pack.version
    is_number = version is not None and re.match(r"\d+\.", version)
    versions = [f"v{version}", version] if is_number else [version] if version else []
    return {**base, "task": "install", "name": pack.name, "url": offer.url, "versions": versions}


@dataclass(frozen=True, kw_only=True)
class TaskResult:
    """`found`: what was inspected, as the untrusted instance tells it."""

    sentence: str
    is_changed: bool = False
    found: tuple[Mapping[str, Any], ...] = ()


def run_task(session: ComfyUISession, request: Mapping[str, Any], stop: CancelToken, say: Say) -> TaskResult:
    """Runs a task of `packs_program`; `say` gets what it prints meanwhile. Raises: ProvisionFailed with its
    sentence; as `PackProvisioner.provide`."""
    found: list[Mapping[str, Any]] = []
    for said in session.connection.run_program(_PROGRAM.read_bytes(), request, stop=stop):
        done, error, line = (as_text(said.get(key)) for key in ("done", "error", "log"))
        if done is not None:
            is_changed = said.get("is_changed") is True
            return TaskResult(sentence=shown(done), is_changed=is_changed, found=tuple(found))
        if said.get("is_busy"):
            raise _PromptArrived("A prompt has arrived")
        if error is not None:
            raise ProvisionFailed(shown(error))
        if "found" in said and len(found) < _MOST_FOUND:
            found.append(as_object(said["found"]))
        if line:
            say(shown(line))
    raise ConnectionFailed("The program on the instance ended without a result")


def _install(session: ComfyUISession, request: Mapping[str, Any], stop: CancelToken, say: Say) -> str:
    name = request["name"]
    say(f"Installing the node pack {name} on the instance")
    try:
        tell = sparsely(lambda line: say(f"Installing the node pack {name}: {line}"))
        return run_task(session, request, stop, tell).sentence
    except ProvisionFailed as error:
        raise ProvisionFailed(f"{name} cannot be installed: {error}") from error


def sparsely(say: Say, every_s: float = 2.0) -> Say:
    """Returns a function that passes a text on, if the last one was some time ago."""
    said_s = time.monotonic()

    def tell(text: str) -> None:
        nonlocal said_s
        if time.monotonic() - said_s > every_s:
            said_s = time.monotonic()
            say(text)

    return tell


def restart_comfyui(session: ComfyUISession, base: Mapping[str, Any], stop: CancelToken, say: Say) -> str:
    """Restarts ComfyUI as soon as its queue is empty, and returns when it answers. The program looks at the
    queue again just before it ends ComfyUI. Raises: as `PackProvisioner.provide`."""
    request = {**base, "task": "restart", "port": session.comfyui_port}
    while True:
        _await_empty_queue(session, stop, say)
        say("Restarting ComfyUI, to load what is new")
        try:
            result = run_task(session, request, stop, lambda _: None)
        except _PromptArrived:
            stop.check()
            continue
        except ProvisionFailed as error:
            raise ProvisionFailed(f"ComfyUI cannot be restarted: {error}") from error
        _await_start(session, stop)
        return result.sentence


def _await_empty_queue(session: ComfyUISession, stop: CancelToken, say: Say) -> None:
    """A restart would end the prompts of others."""
    is_said = False
    while session.client.probe() > 0:
        if not is_said:
            say("Waiting until the other prompts there have ended, to restart ComfyUI")
            is_said = True
        stop.wait(_QUEUE_EVERY_S)
        stop.check()


def _await_start(session: ComfyUISession, stop: CancelToken) -> None:
    end_s = time.monotonic() + _START_LIMIT_S
    while True:
        try:
            session.client.probe()
            session.drop_definitions()
            session.definitions()
            return
        except ComfyUIError as error:
            if time.monotonic() > end_s:
                raise ProvisionFailed("ComfyUI does not answer after its restart") from error
        stop.wait(_START_EVERY_S)
        stop.check()


def _check_classes(session: ComfyUISession, lacking: Sequence[LackingPack]) -> None:
    definitions = session.definitions()
    missing = [name for each in lacking for name in each.class_types if name not in definitions]
    if missing:
        raise ProvisionFailed(
            f"The node packs are installed, but ComfyUI still has no class {shown(', '.join(missing))}: "
            "its log on the instance says why it does not load them"
        )
