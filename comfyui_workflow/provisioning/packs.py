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
from comfyui_workflow.errors import ComfyUIError, ProvisionFailed, UrlRefused, WebError
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

    def _offer(self, lacking: LackingPack) -> PackOffer:
        pack = lacking.pack
        if not self._rules.is_allowed(pack):
            return PackOffer(
                lacking=lacking, refusal=f"{pack.name} is not in COMFYUI_WORKFLOW_PROVISION_PACKS"
            )
        try:
            url = self._repository(pack)
        except (WebError, UrlRefused) as error:
            return PackOffer(lacking=lacking, refusal=str(error))
        if url is None:
            return PackOffer(lacking=lacking, refusal="the registry does not know its repository")
        return PackOffer(lacking=lacking, url=url, refusal=self._rules.downloads.host_refusal(url))

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
        base = _request_base(session)
        done = [_run(session, _install_request(base, each), stop, say) for each in offers]
        with alone():
            done.append(_restart(session, base, stop, say))
            _await_start(session, stop)
        _check_classes(session, lacking)
        return done


def _request_base(session: ComfyUISession) -> dict[str, Any]:
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


def _run(session: ComfyUISession, request: Mapping[str, Any], stop: CancelToken, say: Say) -> str:
    """Runs the program, and returns its last sentence. Raises: as `PackProvisioner.provide`."""
    name = request.get("name")
    if name is not None:
        say(f"Installing the node pack {name} on the instance")
    said_s = time.monotonic()
    for said in session.connection.run_program(_PROGRAM.read_bytes(), request, stop=stop):
        done, error, line = (as_text(said.get(key)) for key in ("done", "error", "log"))
        if done is not None:
            return shown(done)
        if said.get("is_busy"):
            raise _PromptArrived("A prompt has arrived")
        if error is not None:
            what = "ComfyUI cannot be restarted" if name is None else f"{name} cannot be installed"
            raise ProvisionFailed(f"{what}: {shown(error)}")
        if line and time.monotonic() - said_s > _QUEUE_EVERY_S:
            said_s = time.monotonic()
            say(f"Installing the node pack {name}: {shown(line)}")
    raise ProvisionFailed("The installation of node packs ended without a result")


def _restart(session: ComfyUISession, base: Mapping[str, Any], stop: CancelToken, say: Say) -> str:
    """Restarts ComfyUI when it has no prompts. The program looks at the queue again just before it ends
    ComfyUI."""
    while True:
        _await_empty_queue(session, stop, say)
        say("Restarting ComfyUI, to load the new node packs")
        try:
            return _run(session, {**base, "task": "restart", "port": session.comfyui_port}, stop, say)
        except _PromptArrived:
            stop.check()


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
