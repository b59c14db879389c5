"""Chooses the instance for a run whose target is `any`, and gives the reason."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf

from comfyui_workflow.instances.model import Instance


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """An instance that is enabled and ready, and has a free slot for the run."""

    instance: Instance
    ahead: int
    """Prompts that are already there, including prompts of other users."""
    loaded: frozenset[str] = frozenset()
    """Model files of our last prompt there."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    instance: Instance
    reason: str


@dataclass(frozen=True, kw_only=True)
class _Rule:
    """Keeps the candidates with the lowest value."""

    value: Callable[[Candidate], float]
    reason_text: Callable[[Candidate], str]


def choose(candidates: Sequence[Candidate], models: frozenset[str]) -> Choice:
    """Chooses from at least one candidate: those that have the models loaded; then the fewest prompts ahead;
    then the lowest price (an unknown price comes last); then the first name."""
    kept = sorted(candidates, key=lambda candidate: candidate.instance.name)
    if len(kept) == 1:
        return Choice(instance=kept[0].instance, reason="the only one with a free slot")
    reasons = []
    for rule in _rules(models):
        before, least = len(kept), min(map(rule.value, kept))
        kept = [candidate for candidate in kept if rule.value(candidate) == least]
        if len(kept) < before:
            reasons.append(rule.reason_text(kept[0]))
    return Choice(instance=kept[0].instance, reason=", ".join(reasons) or "as good as the others")


def _rules(models: frozenset[str]) -> tuple[_Rule, ...]:
    return (
        _Rule(
            value=lambda candidate: 0 if models <= candidate.loaded else 1,
            reason_text=lambda _: f"has {', '.join(sorted(models))} loaded",
        ),
        _Rule(
            value=lambda candidate: candidate.ahead,
            reason_text=lambda candidate: f"fewest prompts ahead ({candidate.ahead})",
        ),
        _Rule(value=_price, reason_text=lambda candidate: f"cheapest ({_price(candidate):g} an hour)"),
    )


def _price(candidate: Candidate) -> float:
    price = candidate.instance.price_per_hour
    return inf if price is None else price
