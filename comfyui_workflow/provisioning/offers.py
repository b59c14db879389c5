"""Tells where the models that an instance lacks can be had, and how large they are. Downloads nothing."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from comfyui_workflow.concurrency import CancelToken, ParallelMap
from comfyui_workflow.errors import UrlRefused, WebError
from comfyui_workflow.provisioning.rules import DownloadRules, origin_of
from comfyui_workflow.safe_http.client import GuardedClient, HttpAnswer
from comfyui_workflow.safe_http.urls import redirected
from comfyui_workflow.workflows.model_sources import LackingModel

_TIMEOUT_S = 8.0
_AT_ONCE = 8
_MOST_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)


@dataclass(frozen=True, kw_only=True)
class Offer:
    """A lacking model, and where it can be had."""

    lacking: LackingModel
    url: str | None
    """None if the workflow does not tell a source."""
    size: int | None = None
    """In bytes; None if the host does not tell it."""
    refusal: str | None = None
    """The reason why `provision` would not download it; None if it would."""

    def document(self) -> dict[str, Any]:
        """Returns the offer as a JSON object."""
        return {
            "name": self.lacking.name,
            "folder": self.lacking.folder,
            "node_id": self.lacking.node_id,
            "class_type": self.lacking.class_type,
            "input": self.lacking.input_name,
            "url": self.url,
            "size_bytes": self.size,
            "can_provide": self.refusal is None,
            "reason": self.refusal,
        }


class ModelOffers:
    """Asks the hosts of models for their sizes, with HEAD. Thread-safe."""

    def __init__(self, rules: DownloadRules, web: GuardedClient) -> None:
        """`web` must not reach private addresses, except that the settings open them."""
        self._rules = rules
        self._web = web

    @cached_property
    def _web_of_settings(self) -> GuardedClient:
        """For origins that the settings name: a file server of the own network."""
        return GuardedClient(may_reach_private=True)

    def of(self, lacking: Sequence[LackingModel]) -> list[Offer]:
        with ParallelMap(_AT_ONCE, CancelToken()).results(self._offer, list(lacking)) as offers:
            return list(offers)

    def _offer(self, lacking: LackingModel) -> Offer:
        source = lacking.source
        if source is None:
            return Offer(lacking=lacking, url=None, refusal="the workflow does not tell where it can be had")
        refusal = self._rules.refusal(source.url, lacking.name)
        if refusal is not None:  # a host that is not allowed is not even asked
            return Offer(lacking=lacking, url=source.url, refusal=refusal)
        try:
            size, refusal = self._look(source.url)
        except (WebError, UrlRefused) as error:
            return Offer(lacking=lacking, url=source.url, refusal=str(error))
        return Offer(lacking=lacking, url=source.url, size=size, refusal=refusal)

    def _look(self, url: str) -> tuple[int | None, str | None]:
        """Returns the size and the reason why it cannot be had."""
        size = None
        for answer in self._answers(url):
            size = _size(_header(answer, "X-Linked-Size")) or size
            if answer.status == 200:
                return size or _size(_header(answer, "Content-Length")), None
            if answer.status in (405, 501):
                return size, None  # a host without HEAD
            if answer.status not in _REDIRECTS:
                return size, _refusal(url, answer.status)
        return size, f"{origin_of(url)} redirects too often"

    def _answers(self, url: str) -> Iterator[HttpAnswer]:
        headers = self._rules.headers(url)
        for _ in range(_MOST_REDIRECTS):
            is_named = origin_of(url) in self._rules.origins
            web = self._web_of_settings if is_named else self._web
            answer = web.exchange("HEAD", url, None, headers, timeout_s=_TIMEOUT_S)
            yield answer
            target = redirected(url, _header(answer, "Location") or "")
            if origin_of(target) != origin_of(url):
                headers = {}
            if url.startswith("https:") and not target.startswith("https:"):
                raise UrlRefused(f"{origin_of(url)} redirects to an address that is not encrypted")
            url = target


def _header(answer: HttpAnswer, name: str) -> str | None:
    """Returns a header; the case of its name does not matter."""
    return next((value for each, value in answer.headers.items() if each.lower() == name.lower()), None)


def _size(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() and len(text) < 19 else None


def _refusal(url: str, status: int) -> str:
    if status in (401, 403):
        return f"{origin_of(url)} answers {status}: it needs a token, or its licence has to be accepted"
    return f"{origin_of(url)} answers {status}"
