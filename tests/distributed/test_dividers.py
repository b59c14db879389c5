"""ImageBatchDivider, AudioBatchDivider and DistributedEmptyImage, with plain ComfyUI nodes."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfyui_workflow.distributed.resolution import resolved
from comfyui_workflow.distributed.sizes import Sizes, Sound, divided
from comfyui_workflow.errors import InvalidGraph
from tests.fuzz.effort import effort


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def divide(count: int | None, divide_by: Any, slot: int, *, installed: frozenset[str] = frozenset()) -> Any:
    """Returns the graph of a divided batch, one output of which is saved."""
    source = node("Custom") if count is None else node("EmptyImage", batch_size=count)
    graph = {
        "1": source,
        "2": node("ImageBatchDivider", images=["1", 0], divide_by=divide_by),
        "3": node("SaveImage", images=["2", slot]),
    }
    return resolved(graph, 0, installed=installed)


@effort(100)
@given(st.integers(0, 10_000), st.integers(1, 10))
def test_parts_follow_each_other_and_the_longer_ones_come_first(total: int, parts: int) -> None:
    found = divided(total, parts)
    lengths = [length for _, length in found]
    assert [start for start, _ in found] == [sum(lengths[:number]) for number in range(parts)]
    assert sum(lengths) == total
    assert lengths == sorted(lengths, reverse=True)
    assert max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize(("slot", "start", "length"), [(0, 0, 4), (1, 4, 3), (2, 7, 3)])
def test_a_batch_is_cut(slot: int, start: int, length: int) -> None:
    graph = divide(10, 3, slot)
    assert graph["3"]["inputs"]["images"] == ["4", 0]
    assert graph["4"]["class_type"] == "ImageFromBatch"
    assert graph["4"]["inputs"] == {"image": ["1", 0], "batch_index": start, "length": length}


def test_one_part_is_the_batch() -> None:
    assert divide(None, 1, 0)["3"]["inputs"]["images"] == ["1", 0]
    assert divide(None, -5, 0)["3"]["inputs"]["images"] == ["1", 0]


@pytest.mark.parametrize(("count", "divide_by", "slot"), [(10, 3, 3), (10, 3, 9), (2, 3, 2)])
def test_an_output_without_pictures_is_named(count: int, divide_by: int, slot: int) -> None:
    with pytest.raises(InvalidGraph, match=r'Node 3 \(SaveImage\): input "images" gets an empty batch'):
        divide(count, divide_by, slot)


def test_more_than_ten_parts_are_ten() -> None:
    assert divide(20, 99, 9)["4"]["inputs"] == {"image": ["1", 0], "batch_index": 18, "length": 2}
    with pytest.raises(InvalidGraph, match="output 10"):
        divide(20, 99, 10)


def test_a_number_of_pictures_that_is_not_known_needs_a_node_for_it() -> None:
    with pytest.raises(InvalidGraph, match=r"Node 2 \(ImageBatchDivider\): the number of its pictures"):
        divide(None, 3, 1)
    computed = divide(None, 3, 1, installed=frozenset({"ComfyMathExpression"}))
    expressions = [
        each["inputs"] for each in computed.values() if each["class_type"] == "ComfyMathExpression"
    ]
    assert [each["expression"] for each in expressions] == [
        "1 * (a // 3) + min(1, a % 3)",
        "a // 3 + min(1, max(0, a % 3 - 1))",
    ]
    own = divide(None, 3, 1, installed=frozenset({"ImageBatchDivider"}))
    assert own["3"]["inputs"]["images"] == ["2", 1]
    assert own["2"]["class_type"] == "ImageBatchDivider"


@effort(100)
@given(st.integers(0, 100), st.integers(1, 10))
def test_the_expressions_compute_the_same(a: int, parts: int) -> None:
    for slot, (start, length) in enumerate(divided(a, parts)):
        assert slot * (a // parts) + min(slot, a % parts) == start
        assert a // parts + min(1, max(0, a % parts - slot)) == length


def test_a_length_beyond_the_range_of_the_input_comes_from_a_node() -> None:
    graph = divide(9000, 2, 1)
    assert graph["4"] == {
        "class_type": "PrimitiveInt",
        "inputs": {"value": 4500},
        "_meta": {"title": "Length"},
    }
    assert graph["5"]["inputs"] == {"image": ["1", 0], "batch_index": 4500, "length": ["4", 0]}


@pytest.mark.parametrize(
    ("source", "more", "count"),
    [
        (node("EmptyLatentImage", batch_size=4), {}, 4),
        (node("RepeatImageBatch", image=["8", 0], amount=3), {"8": node("EmptyImage", batch_size=2)}, 6),
        (node("ImageBatch", image1=["8", 0], image2=["8", 0]), {"8": node("EmptyImage", batch_size=2)}, 4),
        (node("VAEDecode", samples=["8", 0]), {"8": node("EmptySD3LatentImage", batch_size="5")}, 5),
        (
            node("ImageFromBatch", image=["8", 0], batch_index=-2, length=9),
            {"8": node("EmptyImage", batch_size=6)},
            2,
        ),
        (node("ImageScale", image=["8", 0]), {"8": node("Custom")}, None),
        (node("EmptyImage", batch_size=["8", 0]), {"8": node("Custom")}, None),
        (node("LoadImage", image="a.png"), {}, None),
    ],
)
def test_numbers_of_pictures(source: dict[str, Any], more: dict[str, Any], count: int | None) -> None:
    graph = {
        **more,
        "9": source,
        "10": node("ImageBatchDivider", images=["9", 0], divide_by=2),
        "11": node("SaveImage", images=["10", 0]),
    }
    if count is None:
        with pytest.raises(InvalidGraph, match="ImageBatchDivider"):
            resolved(graph, 0)
    else:
        assert resolved(graph, 0)["12"]["inputs"]["length"] == (count + 1) // 2


def test_a_sound_is_cut_at_samples() -> None:
    graph = {
        "1": node("LoadAudio", audio="a.flac"),
        "2": node("AudioBatchDivider", audio=["1", 0], divide_by=3),
        "3": node("SaveAudio", audio=["2", 1]),
    }
    sizes = Sizes(audio={("1", 0): Sound(samples=800, sample_rate=8000)})
    cut = resolved(graph, 0, sizes=sizes)["4"]["inputs"]
    assert (round(cut["start_index"] * 8000), round(cut["duration"] * 8000)) == (267, 267)
    with pytest.raises(InvalidGraph, match=r"Node 2 \(AudioBatchDivider\): the length of its sound"):
        resolved(graph, 0)
    assert resolved(graph, 0, installed=frozenset({"AudioBatchDivider"}))["3"]["inputs"]["audio"] == ["2", 1]


def test_an_empty_image_only_gives_its_size() -> None:
    graph = {
        "1": node("DistributedEmptyImage", width=8, height=4, channels=3),
        "2": node("EmptyImage", batch_size=1),
        "3": node("ImageBatch", image1=["1", 0], image2=["2", 0]),
        "4": node("ImageBatch", image1=["2", 0], image2=["1", 0]),
        "5": node("SaveImage", images=["3", 0]),
        "6": node("SaveImage", images=["4", 0]),
    }
    plain = resolved(graph, 0)
    assert plain["3"]["class_type"] == "ImageScale"
    assert (plain["3"]["inputs"]["width"], plain["3"]["inputs"]["height"]) == (8, 4)
    assert plain["6"]["inputs"]["images"] == ["2", 0]
    assert "1" not in plain
    assert "4" not in plain
