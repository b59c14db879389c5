"""Detects a second server that works on the same runs.

How it works. A second server executes the same runs if the data directory was copied, or its lock was
removed. Each prompt carries the server process that sent it and the time. So a server can find prompts at the
instance that its own data does not explain. The server that finds one stops and changes nothing.
"""

from comfyui_workflow.comfyui.queue import PromptMark
from comfyui_workflow.errors import RunNotFound
from comfyui_workflow.runs.model import Run
from comfyui_workflow.stores.base import DataOwnership
from comfyui_workflow.stores.journal import RunJournal


class PromptMarkCheck:
    """Checks marks of prompts against the data of this server. Thread-safe."""

    def __init__(self, journal: RunJournal, ownership: DataOwnership) -> None:
        self._journal = journal
        self._ownership = ownership
        self._has_seen_other = False

    def has_seen_other(self) -> bool:
        """True if a prompt of our runs was seen that another process had sent."""
        return self._has_seen_other

    def judge(self, mark: PromptMark) -> None:
        """Raises: DataTaken if another server works on our data."""
        self._ownership.check()
        if mark.process is None or mark.process == self._ownership.token:
            return
        try:
            run = self._journal.get(mark.run_id)
        except RunNotFound:
            return  # a prompt of another server that uses the same instance
        self._has_seen_other = True
        if not self._is_explained(mark, mark.process, run):
            self._ownership.give_up(
                f"This server stops: at the instance of the run {run.run_id} there is its prompt "
                f"{mark.prompt_id}, which another server has sent. That server works on a copy of this "
                "data, or on the same data. All runs were left as they are. Keep one of the two servers. If "
                "there is no other server any more, remove that prompt from the queue or the history of "
                "ComfyUI, and start this server again"
            )

    def _is_explained(self, mark: PromptMark, process: str, run: Run) -> bool:
        """True if our data explains the prompt. A submission that is not in our data may have lost its record
        in a power cut; then it was sent before this process started."""
        is_before_us = mark.sent_at_s is None or mark.sent_at_s <= self._ownership.began_at_s
        if not self._ownership.knows(process):
            return is_before_us and not self._ownership.are_all_known
        submission = mark.submission
        if submission is None or submission < run.submissions:
            return True
        if submission == run.submissions:
            return process in run.sent_by or is_before_us
        return is_before_us
