"""Puts the models on an instance that a graph names and the instance does not have."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from comfyui_workflow.concurrency import CancelToken
from comfyui_workflow.errors import ProvisionFailed
from comfyui_workflow.parsing.untrusted import shown
from comfyui_workflow.provisioning.downloads import (
    PlacedFile,
    Progress,
    WantedFile,
    download,
    progress_text,
)
from comfyui_workflow.provisioning.folders import folders_of
from comfyui_workflow.provisioning.rules import DownloadRules, host_of
from comfyui_workflow.provisioning.sizes import size_text
from comfyui_workflow.runs.credentials import RequestSecrets
from comfyui_workflow.sessions.session import ComfyUISession
from comfyui_workflow.storage.events import TellEvent, tell_nobody
from comfyui_workflow.workflows.graph import Graph
from comfyui_workflow.workflows.model import GraphRequest
from comfyui_workflow.workflows.model_sources import (
    LackingModel,
    is_safe_path,
    lacking_models,
    sources_of,
)

_SAID_EVERY_S = 2.0
"""Each sentence about the progress is written to disk with the run."""

OnBytes = Callable[[int, int], None]
OpenTransfer = Callable[[str], AbstractContextManager[OnBytes]]
"""Registers a transfer by the name of its file, for the live progress of a run."""


class ModelProvisioner:
    """Provides the models of runs. Thread-safe."""

    def __init__(self, rules: DownloadRules, tell: TellEvent = tell_nobody) -> None:
        self._rules = rules
        self._tell = tell

    def provide(
        self,
        session: ComfyUISession,
        graph: Graph,
        request: GraphRequest,
        *,
        secrets: RequestSecrets,
        stop: CancelToken,
        say: Callable[[str], None],
        transfer: OpenTransfer,
    ) -> list[str]:
        """Downloads each lacking model for which the workflow tells a source. Returns a sentence for each new
        one. Models without a source are left to the validation of the graph.

        Raises: Stopped; ProvisionFailed; ProvisionUnavailable, ConnectionFailed; the errors of ComfyUI."""
        found = lacking_models(graph, session.definitions(), sources_of(request))
        lacking = [each for each in found if each.source is not None]
        if not lacking:
            return []
        wanted = self._wanted(session, lacking)
        sentences = []
        for each in wanted:
            with transfer(each.name) as on_bytes:
                placed = self._download(session, each, secrets=secrets, stop=stop, say=say, on_bytes=on_bytes)
            if not placed.existed:
                sentences.append(
                    f"Downloaded {each.name} ({size_text(placed.size)}) from {host_of(each.url)} "
                    f"to {placed.path} on the instance"
                )
        session.drop_definitions()  # ComfyUI lists the new files now
        return sentences

    def _wanted(self, session: ComfyUISession, lacking: list[LackingModel]) -> list[WantedFile]:
        """Decides about all of them before the first one is downloaded. Raises: ProvisionFailed."""
        folders, wanted = folders_of(session), []
        for each in lacking:
            source = each.source
            if source is None or not is_safe_path(each.name):
                raise ProvisionFailed(f"{shown(each.name)} is no safe name for a file")
            refusal = self._rules.refusal(source.url, each.name)
            if refusal is not None:
                raise ProvisionFailed(f"{shown(each.name)} is not downloaded: {refusal}")
            directory = folders.directory_for(each)
            wanted.append(
                WantedFile(url=source.url, directory=directory, name=each.name, sha256=source.sha256)
            )
        return wanted

    def _download(
        self,
        session: ComfyUISession,
        wanted: WantedFile,
        *,
        secrets: RequestSecrets,
        stop: CancelToken,
        say: Callable[[str], None],
        on_bytes: OnBytes,
    ) -> PlacedFile:
        said_s = 0.0

        def report(progress: Progress) -> None:
            nonlocal said_s
            if not progress.is_check:
                on_bytes(progress.done_bytes, progress.total_bytes or 0)
            if time.monotonic() - said_s >= _SAID_EVERY_S:
                said_s = time.monotonic()
                say(progress_text(wanted.name, progress))

        say(f"Downloading {wanted.name} on the instance, from {host_of(wanted.url)}")
        return download(
            session.connection,
            wanted,
            self._rules,
            secrets=secrets,
            stop=stop,
            report=report,
            tell=self._tell,
        )
