"""The choice of the instance, and the sentence that gives the reason."""

import pytest

from comfyui_workflow.scheduling.choice import Candidate, choose
from comfyui_workflow.workflows.model_files import referenced_models
from tests.scheduling.making import instance

SD = frozenset({"sd.safetensors"})


def candidate(
    name: str, ahead: int = 0, price: float | None = None, loaded: frozenset[str] = frozenset()
) -> Candidate:
    return Candidate(instance=instance(name, price_per_hour=price), ahead=ahead, loaded=loaded)


@pytest.mark.parametrize(
    ("candidates", "models", "name", "reason"),
    [
        ([candidate("a", 5)], SD, "a", "the only one with a free slot"),
        ([candidate("b"), candidate("a")], SD, "a", "as good as the others"),
        ([candidate("a"), candidate("b", 1, loaded=SD)], SD, "b", "has sd.safetensors loaded"),
        ([candidate("a"), candidate("b", 1, loaded=SD)], frozenset(), "a", "fewest prompts ahead (0)"),
        ([candidate("a", 1, 0.1), candidate("b", 0, 9.0)], SD, "b", "fewest prompts ahead (0)"),
        ([candidate("a", 1, 0.5), candidate("b", 1, 0.4)], SD, "b", "cheapest (0.4 an hour)"),
        ([candidate("a", 1, None), candidate("b", 1, 9.0)], SD, "b", "cheapest (9 an hour)"),
        ([candidate("a", 1, 0.5), candidate("b", 1, 0)], SD, "b", "cheapest (0 an hour)"),
        (
            [
                candidate("a", 1, 0.5, SD),
                candidate("b", 0, 0.4),
                candidate("c", 1, 0.3, SD),
                candidate("d", 2, 0, SD),
            ],
            SD,
            "c",
            "has sd.safetensors loaded, fewest prompts ahead (1), cheapest (0.3 an hour)",
        ),
    ],
)
def test_the_rules_come_one_after_the_other(
    candidates: list[Candidate], models: frozenset[str], name: str, reason: str
) -> None:
    for order in (candidates, candidates[::-1]):
        choice = choose(order, models)
        assert (choice.instance.name, choice.reason) == (name, reason)


def test_models_are_known_by_their_names() -> None:
    graph = {
        "1": {
            "class_type": "A",
            "inputs": {"ckpt_name": "x/SD.Safetensors", "strength": 1.0, "clip": ["2", 0]},
        },
        "2": {"class_type": "B", "inputs": {"a": "q4.gguf", "text": "a cat.", "image": "photo.png"}},
        "3": {"class_type": "C", "inputs": None},
        "4": "no node",
    }
    assert referenced_models(graph) == {"x/SD.Safetensors", "q4.gguf"}
