"""After each job its instance gives back its memory: as much of a new worker as there can be here."""

import logging
from collections.abc import Callable

from comfyui_workflow.errors import WorkflowError
from comfyui_workflow.runs.model import Run
from comfyui_workflow.sessions.leases import Sessions, lease_within
from comfyui_workflow.sessions.session import key_of

log = logging.getLogger(__name__)

PATIENCE_S = 10.0


def refresher(sessions: Sessions) -> Callable[[Run], None]:
    """ComfyUI itself waits until nothing executes. An instance that is away has nothing to give back."""

    def refresh(run: Run) -> None:
        if run.prompt_id is None:
            return
        try:
            with lease_within(sessions, key_of(run), PATIENCE_S) as session:
                session.client.free(unload_models=True, free_memory=True)
        except WorkflowError as error:
            log.info("%s: its instance keeps its memory: %s", run.run_id, error)

    return refresh
