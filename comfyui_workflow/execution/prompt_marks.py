"""Whose prompt it is that carries the mark of one of our runs.

The data directory may have been copied, or its lock removed, and a second server drives the same runs. Each
prompt tells which server process sent it and when, so a server can see at the instance what its own data do
not explain. The server that notices stops and leaves everything as it is.
"""

from comfyui_workflow.comfyui.queue import PromptMark
from comfyui_workflow.errors import RunNotFound
from comfyui_workflow.runs.model import Run
from comfyui_workflow.stores.files.ownership import Ownership
from comfyui_workflow.stores.journal import RunJournal


class PromptMarkCheck:
    """May be used from any thread."""

    def __init__(self, journal: RunJournal, ownership: Ownership) -> None:
        self._journal = journal
        self._ownership = ownership
        self._has_seen_other = False

    def has_seen_other(self) -> bool:
        """Whether a prompt of our runs was seen that another process than this one had sent."""
        return self._has_seen_other

    def judge(self, mark: PromptMark) -> None:
        """Raises: DataTaken, when another server works on our data."""
        self._ownership.check()
        if mark.process is None or mark.process == self._ownership.token:
            return
        try:
            run = self._journal.get(mark.run_id)
        except RunNotFound:
            return  # of another server that uses the instance
        self._has_seen_other = True
        if not self._is_explained(mark, mark.process, run):
            self._ownership.give_up(
                f"This server stops: at the instance of the run {run.run_id} there is its prompt "
                f"{mark.prompt_id}, which another server has sent. It works on a copy of these data, or on "
                "the same: the runs were left as they are. Keep one of the two servers; if there is no other "
                "any more, remove that prompt from the queue or the history of ComfyUI and start this one "
                "again"
            )

    def _is_explained(self, mark: PromptMark, process: str, run: Run) -> bool:
        """By our data. A submission of which they do not know may be one whose record a power cut took: then
        it was sent before this process began."""
        is_before_us = mark.sent_at_s is None or mark.sent_at_s <= self._ownership.began_at_s
        if not self._ownership.knows(process):
            return is_before_us and not self._ownership.are_all_known
        submission = mark.submission
        if submission is None or submission < run.submissions:
            return True
        if submission == run.submissions:
            return process in run.sent_by or is_before_us
        return is_before_us
