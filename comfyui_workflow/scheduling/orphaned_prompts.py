"""Finds prompts that our runs gave up while the instance was not reachable."""

from comfyui_workflow.errors import RunNotFound
from comfyui_workflow.stores.journal import RunJournal


def is_given_up(journal: RunJournal, correlation: str) -> bool | None:
    """True if our run no longer wants the prompt; None if the run is not ours, because other servers use the
    instance too. `correlation` is `<workflow id>/<number of the submission>`. A submission that is not in our
    record is not given up: a power cut may have destroyed the record, and the run adopts the prompt."""
    run_id, _, submission = correlation.partition("/")
    try:
        run = journal.get(run_id)
    except RunNotFound:
        return None
    if submission.isdecimal() and int(submission[:9]) > run.submissions:
        return False
    return run.is_finished or run.prompt_id is None or str(run.submissions) != submission
