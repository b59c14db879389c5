"""One answer for all who ask the same at about the same time: fifty open pages are served as one."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from flask import Blueprint, Response, request

SHARED_S = 0.5
MOST_OF_A_CORE = 0.05
"""What was dear to make is shared for longer: making it anew must not take more than that."""


@dataclass(frozen=True, kw_only=True)
class _Answer:
    stamp: tuple[int, int]
    until_s: float
    body: bytes
    etag: str | None


class SharedAnswers:
    """An answer is shared for a moment, and no longer than until `version` changes or a request has changed
    something. Every method may be called from any thread."""

    def __init__(self, version: Callable[[], int], clock: Callable[[], float] = time.monotonic) -> None:
        self._version = version
        self._clock = clock
        self._changes = 0
        self._answers: dict[str, _Answer] = {}

    def forget(self) -> None:
        """Something was changed. Whatever is being made now is not shared with those who ask from now on."""
        self._changes += 1

    def answer(self, question: str, make: Callable[[], Response]) -> Response:
        """What `make` gives, or gave to who asked the same: JSON under status 200."""
        stamp, began_s = (self._version(), self._changes), self._clock()
        known = self._answers.get(question)
        if known is None or known.stamp != stamp or known.until_s <= began_s:
            known = self._keep(question, make(), stamp, began_s)
        response = Response(known.body, mimetype="application/json")
        if known.etag is not None:
            response.set_etag(known.etag)
        return response

    def _keep(self, question: str, response: Response, stamp: tuple[int, int], began_s: float) -> _Answer:
        made_s = self._clock()
        response.add_etag()
        made = _Answer(
            stamp=stamp,
            until_s=made_s + max(SHARED_S, (made_s - began_s) / MOST_OF_A_CORE),
            body=response.get_data(),
            etag=response.get_etag()[0],
        )
        # a new dictionary, so that nobody walks through one that changes
        fresh = {each: answer for each, answer in self._answers.items() if answer.until_s > made_s}
        self._answers = {**fresh, question: made}
        return made


def shared_answers(routes: Blueprint, version: Callable[[], int]) -> SharedAnswers:
    """For some of these routes; whoever has changed something, by whatever route, sees it in them."""
    answers = SharedAnswers(version)

    @routes.after_app_request
    def heed(response: Response) -> Response:
        if request.method not in ("GET", "HEAD", "OPTIONS"):
            answers.forget()
        return response

    return answers
