"""Prompts that we left behind on an instance that was away."""

from comfyui_workflow.errors import RunNotFound
from comfyui_workflow.stores.journal import RunJournal


def is_given_up(journal: RunJournal, correlation: str) -> bool | None:
    """Whether our run does not want that prompt any more; None for a run that is not ours: other servers use
    the instance too. `correlation`: `<workflow id>/<how often it had been submitted>`. A submission that our
    record does not know of is not given up: a power cut can take the record; the run adopts the prompt."""
    run_id, _, submission = correlation.partition("/")
    try:
        run = journal.get(run_id)
    except RunNotFound:
        return None
    if submission.isdecimal() and int(submission[:9]) > run.submissions:
        return False
    return run.is_finished or run.prompt_id is None or str(run.submissions) != submission
