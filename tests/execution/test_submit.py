"""Data that all submissions of one server process share."""

import uuid
from dataclasses import replace

from comfyui_workflow.comfyui.prompt_lookup import derived_prompt_id
from comfyui_workflow.execution.submit import SubmissionContext
from tests.runs.test_state_machine import new_run


def test_a_prompt_has_our_id_unless_comfyui_has_chosen_one() -> None:
    server = uuid.uuid4()
    context = SubmissionContext(server=lambda: server)
    run = replace(new_run(), submissions=2)
    ours = derived_prompt_id(server, f"{run.run_id}/2")
    assert context.has_our_id(replace(run, prompt_id=ours))
    assert not context.has_our_id(replace(run, prompt_id=str(uuid.uuid4())))
    assert not context.has_our_id(replace(run, prompt_id=derived_prompt_id(server, f"{run.run_id}/1")))
