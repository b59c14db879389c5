"""Sandbox process that ends when its stdin closes, so it never outlives its parent process."""

import os
import signal
import threading

from comfyui_workflow.sandbox.__main__ import main


def _end_with_stdin() -> None:
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    main(prog_name="sandbox")
