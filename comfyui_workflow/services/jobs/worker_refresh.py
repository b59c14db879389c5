"""Worker refresh: frees the memory of the instance after each job.

This replaces the start of a new worker, which is not possible on a rented instance.
"""

import logging
from collections.abc import Callable

from comfyui_workflow.errors import WorkflowError
from comfyui_workflow.runs.model import Run
from comfyui_workflow.sessions.leases import Sessions, lease_session
from comfyui_workflow.sessions.session import key_of

log = logging.getLogger(__name__)

PATIENCE_S = 10.0


def refresher(sessions: Sessions) -> Callable[[Run], None]:
    """Returns a function that frees the models and the memory of the instance of a run.

    ComfyUI itself waits until no prompt executes. An unreachable instance is skipped."""

    def refresh(run: Run) -> None:
        if run.prompt_id is None:
            return
        try:
            with lease_session(sessions, key_of(run), PATIENCE_S, run.port_of_prompt) as session:
                session.client.free(unload_models=True, free_memory=True)
        except WorkflowError as error:
            log.info("%s: the memory of its instance was not freed: %s", run.run_id, error)

    return refresh
