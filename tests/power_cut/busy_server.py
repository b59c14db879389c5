"""The server as on a machine that has much to write, with runs whose logs are long: files are flushed one by
one, and logs are made anew after a few steps.

python -m tests.power_cut.busy_server
"""

from comfyui_workflow import app
from comfyui_workflow.files import disk_flush as flush
from comfyui_workflow.server import http
from comfyui_workflow.stores.files import run_log


def set_limits() -> None:
    flush.MOST_FOREIGN_BYTES = -1
    run_log.COMPACT_AFTER_BYTES = 1
    run_log._COMPACT_AFTER_TIMES = 2


if __name__ == "__main__":
    set_limits()
    http.main(app.create_server)
