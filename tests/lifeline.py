"""How a process that tests start never outlives them."""

import subprocess


class Lifeline:
    """Kills that process when ours is gone, however ours ended and even if that one is stopped.

    A shell waits for the end of its stdin, a pipe from us. Its own process group keeps Ctrl-C away from it.
    """

    def __init__(self, process_id: int) -> None:
        command = ["/bin/sh", "-c", f"read -r _; kill -9 {process_id}"]
        self._shell = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, process_group=0
        )

    def release(self) -> None:
        """To be called when the process has ended by itself, or is about to be ended."""
        self._shell.kill()
        self._shell.communicate()
