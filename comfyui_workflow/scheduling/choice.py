"""Which instance a run for `any` goes to, and why."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf

from comfyui_workflow.instances.model import Instance


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """An instance that is enabled, ready and has a free place for the run."""

    instance: Instance
    ahead: int
    """Prompts that are there already, other people's included."""
    loaded: frozenset[str] = frozenset()
    """Model files of the prompt that it had last from us."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    instance: Instance
    reason: str


@dataclass(frozen=True, kw_only=True)
class _Rule:
    """The candidates of the least value are kept."""

    value: Callable[[Candidate], float]
    words: Callable[[Candidate], str]


def choose(candidates: Sequence[Candidate], models: frozenset[str]) -> Choice:
    """Of at least one candidate: the one that has the models loaded, then the fewest prompts ahead, then the
    cheapest (a price that is not known comes last), then the first by name."""
    kept = sorted(candidates, key=lambda candidate: candidate.instance.name)
    if len(kept) == 1:
        return Choice(instance=kept[0].instance, reason="the only one with a free place")
    reasons = []
    for rule in _rules(models):
        before, least = len(kept), min(map(rule.value, kept))
        kept = [candidate for candidate in kept if rule.value(candidate) == least]
        if len(kept) < before:
            reasons.append(rule.words(kept[0]))
    return Choice(instance=kept[0].instance, reason=", ".join(reasons) or "as good as the others")


def _rules(models: frozenset[str]) -> tuple[_Rule, ...]:
    return (
        _Rule(
            value=lambda candidate: 0 if models <= candidate.loaded else 1,
            words=lambda _: f"has {', '.join(sorted(models))} loaded",
        ),
        _Rule(
            value=lambda candidate: candidate.ahead,
            words=lambda candidate: f"fewest prompts ahead ({candidate.ahead})",
        ),
        _Rule(value=_price, words=lambda candidate: f"cheapest ({_price(candidate):g} an hour)"),
    )


def _price(candidate: Candidate) -> float:
    price = candidate.instance.price_per_hour
    return inf if price is None else price
