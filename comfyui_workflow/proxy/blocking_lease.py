"""A way to an instance, borrowed by a thread of its own: `borrow` blocks, and the event loop must not."""

import asyncio
import logging
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress

from comfyui_workflow.errors import WorkflowError

log = logging.getLogger(__name__)


class Loan:
    """Made on the event loop. `base_url` is settled once it is borrowed, or with a WorkflowError."""

    def __init__(self, borrow: Callable[[], AbstractContextManager[str]], name: str) -> None:
        self.base_url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._borrow = borrow
        self._returned = threading.Event()
        self._thread = threading.Thread(target=self._hold, name=f"local port {name}"[:60], daemon=True)
        self._thread.start()

    def give_back(self) -> None:
        """At once, or as soon as it is had. Idempotent."""
        self._returned.set()

    def join(self, timeout_s: float) -> None:
        self._thread.join(timeout_s)

    def _hold(self) -> None:
        try:
            with self._borrow() as base_url:
                self._tell(base_url)
                self._returned.wait()
        except WorkflowError as error:
            self._tell(error)
        except Exception:
            log.exception("the way to an instance could not be borrowed")
            self._tell(WorkflowError("Internal error: the log of the server has more."))

    def _tell(self, outcome: str | WorkflowError) -> None:
        with suppress(RuntimeError):  # the loop has ended: nobody waits any more
            self.base_url.get_loop().call_soon_threadsafe(self._settle, outcome)

    def _settle(self, outcome: str | WorkflowError) -> None:
        if self.base_url.done():
            return
        if isinstance(outcome, str):
            self.base_url.set_result(outcome)
        else:
            self.base_url.set_exception(outcome)
            self.base_url.exception()  # nobody may be waiting for it
