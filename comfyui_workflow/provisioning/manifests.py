"""Applies a manifest to the machine of a session: packages, node packs, models, and a restart if one is due.

How it works. Each call first asks the machine what is there (`packs_program`, task `inspect`), and then does
only what is lacking. So a second call changes nothing, and a call after a cut at any point continues. Nothing
is changed if an entry is refused.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from comfyui_workflow.concurrency import CancelToken, ParallelMap
from comfyui_workflow.errors import ProvisionFailed
from comfyui_workflow.provisioning.downloads import PlacedFile, Progress, WantedFile, download, progress_text
from comfyui_workflow.provisioning.folders import ModelFolders, folders_of
from comfyui_workflow.provisioning.manifest import Manifest, WantedModel, WantedPack
from comfyui_workflow.provisioning.manifest_plan import (
    Facts,
    Kind,
    Plan,
    ResolvedModel,
    ResolvedPack,
    make_plan,
    read_facts,
)
from comfyui_workflow.provisioning.packs import (
    PackOffers,
    PackRules,
    request_base,
    restart_comfyui,
    run_task,
    sparsely,
)
from comfyui_workflow.provisioning.rules import host_of
from comfyui_workflow.provisioning.sizes import size_text
from comfyui_workflow.runs.credentials import NO_SECRETS, RequestSecrets, with_urls
from comfyui_workflow.sessions.session import ComfyUISession

_CHECK_PIP = Path(__file__).with_name("check_pip_program.py")
_AT_ONCE = 8
_WITHOUT_PACKS = "/tmp"  # noqa: S108 - only locked, to install one after the other

KnownHashes = Mapping[str, tuple[int, int | None, str]]
"""Size, time of the last change and SHA-256 by path: files that were read before."""


class Progressing(Protocol):
    """What follows an application of a manifest."""

    def say(self, sentence: str) -> None:
        """Something was done, or begins."""

    def show(self, sentence: str) -> None:
        """The progress of what is being done; each one replaces the one before."""

    def advanced(self, item: str, position: int) -> None:
        """Something has come further, in bytes or steps. Only that resets the time after which retries
        end."""

    def planned(self, plan: Plan) -> None:
        """Called with each plan before it is carried out."""

    def set_restart_due(self, marker: str | None) -> None:
        """Saves that ComfyUI must be restarted, and the boot marker of the one that is running; None: no
        longer. Returns when it is on disk."""

    def restart_is_due(self, session: ComfyUISession) -> bool:
        """True if a restart is due, and ComfyUI was not restarted since."""

    def placed(self, path: str, file: PlacedFile) -> None: ...

    def known_hashes(self) -> KnownHashes: ...


@dataclass(frozen=True, kw_only=True)
class Application:
    """One manifest for one session."""

    session: ComfyUISession
    manifest: Manifest
    secrets: RequestSecrets = NO_SECRETS
    stop: CancelToken
    progress: Progressing
    alone: Callable[[], AbstractContextManager[None]] = nullcontext
    """Held during a restart of ComfyUI: nobody submits a prompt meanwhile."""


class ManifestProvisioner:
    """Thread-safe."""

    def __init__(self, rules: PackRules, offers: PackOffers) -> None:
        self._rules = rules
        self._offers = offers

    def plan(self, of: Application) -> Plan:
        """Changes nothing. Raises: Stopped; ProvisionFailed; ConnectionFailed; ProgramFailed; the errors of
        ComfyUI."""
        return self._plan(of)[0]

    def apply(self, of: Application) -> None:
        """Returns when the machine has everything. It may be repeated after a cut at any point. Raises: as
        `plan`."""
        self.apply_after_start(of, self.apply_before_start(of))

    def apply_before_start(self, of: Application) -> Plan:
        """Applies everything but the models of `after_start`. Returns the plan. Raises: as `plan`."""
        plan, _ = self._plan(of)
        of.progress.planned(plan)
        if plan.refused:
            reasons = "; ".join(f"{each.name}: {each.reason}" for each in plan.refused)
            raise ProvisionFailed(
                f"Nothing was changed, because parts of the manifest are refused: {reasons}"
            )
        self._packages(of, plan, Kind.APT)
        self._packages(of, plan, Kind.PIP)
        self._packs(of, plan)
        self._models(of, plan, is_before_start=True)
        if of.progress.restart_is_due(of.session):
            with of.alone():
                base = request_base(of.session)
                of.progress.say(restart_comfyui(of.session, base, of.stop, of.progress.say))
        of.progress.set_restart_due(None)
        return plan

    def apply_after_start(self, of: Application, plan: Plan) -> None:
        """Downloads the models of `after_start`. Raises: as `plan`."""
        self._models(of, plan, is_before_start=False)

    def lock(self, of: Application) -> dict[str, Any]:
        """Returns what is there now of everything that the manifest names, as a JSON object. Files that were
        not hashed before are read. Raises: as `plan`."""
        plan, facts = self._plan(of, is_hashed=True)
        return {
            "apt": dict(facts.apt),
            "pip": dict(facts.pip),
            "custom_nodes": [_locked_pack(each, facts) for each in plan.packs],
            "models": [_locked_model(each, facts) for each in plan.models if each.directory],
        }

    def _plan(self, of: Application, *, is_hashed: bool = False) -> tuple[Plan, Facts]:
        packs, models = self._resolved_packs(of), self._resolved_models(of)
        refused = self._refused_packages(of.manifest)
        request = {
            **_base(of),
            "task": "inspect",
            "apt": of.manifest.apt,
            "pip": [each.requirement for each in of.manifest.pip if each.requirement not in refused],
            "check_pip": _CHECK_PIP.read_text(),
            "packs": [_pack_request(each) for each in packs],
            "files": [
                {"path": each.path, "is_hashed": is_hashed or each.wanted.sha256 is not None}
                for each in models
                if each.directory
            ],
            "known": {path: list(known) for path, known in of.progress.known_hashes().items()},
        }
        facts = read_facts(run_task(of.session, request, of.stop, of.progress.show).found)
        plan = make_plan(of.manifest, facts, packs=packs, models=models, refused_packages=refused)
        return plan, facts

    def _refused_packages(self, manifest: Manifest) -> dict[str, str]:
        """Returns the reasons, by requirement."""
        urls = {each.requirement: each.url for each in manifest.pip if each.url is not None}
        reasons = {line: self._rules.downloads.host_refusal(url) for line, url in urls.items()}
        return {line: reason for line, reason in reasons.items() if reason is not None}

    def _resolved_packs(self, of: Application) -> list[ResolvedPack]:
        def resolved(wanted: WantedPack) -> ResolvedPack:
            source = self._offers.source(wanted.pack, wanted.url)
            return ResolvedPack(wanted=wanted, url=source.url, refusal=source.refusal)

        with ParallelMap(_AT_ONCE, of.stop).results(resolved, list(of.manifest.packs)) as found:
            return list(found)

    def _resolved_models(self, of: Application) -> list[ResolvedModel]:
        if not of.manifest.models:
            return []
        folders = folders_of(of.session)
        return [self._resolved_model(each, folders) for each in of.manifest.models]

    def _resolved_model(self, wanted: WantedModel, folders: ModelFolders) -> ResolvedModel:
        try:
            directory, name = folders.place_of(wanted.local_path)
        except ProvisionFailed as error:
            return ResolvedModel(wanted=wanted, refusal=str(error))
        refusal = self._rules.downloads.refusal(wanted.url, name)
        return ResolvedModel(wanted=wanted, directory=directory, name=name, refusal=refusal)

    def _packages(self, of: Application, plan: Plan, kind: Kind) -> None:
        names = [each.name for each in plan.to_do(kind)]
        if not names:
            return
        of.progress.say(f"Installing with {kind.value}: {', '.join(names)}")
        request = {
            **_base(of),
            "task": kind.value,
            "packages": names,
            "check_pip": _CHECK_PIP.read_text(),
        }
        failure = f"The packages of {kind.value} cannot be installed"
        _install(of, request, failure, is_loaded=kind is Kind.PIP)

    def _packs(self, of: Application, plan: Plan) -> None:
        to_do = {each.name for each in plan.to_do(Kind.PACK)}
        for resolved in plan.packs:
            if resolved.wanted.given not in to_do:
                continue
            of.progress.say(f"Installing the node pack {resolved.wanted.name} from {resolved.url}")
            request = {**request_base(of.session), **_pack_request(resolved), "task": "install"}
            _install(of, request, f"{resolved.wanted.name} cannot be installed", is_loaded=True)

    def _models(self, of: Application, plan: Plan, *, is_before_start: bool) -> None:
        wanted = {each.name for each in plan.to_do(Kind.MODEL) if each.is_before_start is is_before_start}
        for each in plan.models:
            if each.path in wanted and each.wanted.is_before_start is is_before_start:
                self._download(of, each)
        if wanted:
            of.session.drop_definitions()  # ComfyUI lists the new files now

    def _download(self, of: Application, model: ResolvedModel) -> None:
        url = model.wanted.url
        of.progress.say(f"Downloading {model.name} on the instance, from {host_of(url)}")
        show = sparsely(of.progress.show, 0.5)

        def report(progress: Progress) -> None:
            of.progress.advanced(f"{model.path} {progress.is_check}", progress.done_bytes)
            show(progress_text(model.name, progress))

        placed = download(
            of.session.connection,
            WantedFile(url=url, directory=model.directory, name=model.name, sha256=model.wanted.sha256),
            self._rules.downloads,
            secrets=with_urls(of.secrets, of.manifest.secret_urls),
            stop=of.stop,
            report=report,
        )
        of.progress.placed(model.path, placed)
        of.progress.say(f"Downloaded {model.name} ({size_text(placed.size)}) to {placed.path}")


def _install(of: Application, request: Mapping[str, Any], failure: str, *, is_loaded: bool) -> None:
    """Runs an installation. If ComfyUI loads such things only when it starts, it is saved before that a
    restart is due, and taken back if nothing has changed."""
    was_due = of.progress.restart_is_due(of.session)
    if is_loaded and not was_due:
        of.progress.set_restart_due(of.session.boot_marker() or "")
    try:
        result = run_task(of.session, request, of.stop, sparsely(of.progress.show, 0.5))
    except ProvisionFailed as error:
        raise ProvisionFailed(f"{failure}: {error}") from error
    if is_loaded and not was_due and not result.is_changed:
        of.progress.set_restart_due(None)
    of.progress.advanced(result.sentence, 1)
    of.progress.say(result.sentence)


def _base(of: Application) -> dict[str, Any]:
    """Packages of apt and models need nothing that only some ComfyUIs tell."""
    if of.manifest.pip or of.manifest.packs:
        return request_base(of.session)
    return {"argv": [], "directory": _WITHOUT_PACKS}


def _pack_request(resolved: ResolvedPack) -> dict[str, Any]:
    wanted = resolved.wanted
    return {
        "name": wanted.name,
        "url": resolved.url or "",
        "versions": list(wanted.refs),
        "is_exact": True,
        "is_from_url": wanted.url is not None,
    }


def _locked_pack(resolved: ResolvedPack, facts: Facts) -> dict[str, Any]:
    state = facts.packs.get(resolved.wanted.name)
    return {
        "name": resolved.wanted.given,
        "path": state.path if state else None,
        "url": state.url if state else None,
        "commit": state.commit if state else None,
        "version": state.version if state else None,
    }


def _locked_model(resolved: ResolvedModel, facts: Facts) -> dict[str, Any]:
    state = facts.files.get(resolved.path)
    return {
        "url": resolved.wanted.url,
        "path": resolved.path,
        "size": state.size if state else None,
        "sha256": state.sha256 if state else None,
        "time_ns": state.time_ns if state else None,
    }
