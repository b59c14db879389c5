"""The graph of one participant, with the small nodes of ComfyUI-Distributed replaced by what plain ComfyUI
has.

Each node is visited after its sources. A node that goes away leaves a replacement for its outputs: a value, a
link to another node, or the mark of an empty batch, which the nodes that use it then get.
"""

from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import Any

from comfyui_workflow.distributed.model import MASTER_INDEX
from comfyui_workflow.distributed.nodes import (
    AUDIO_DIVIDER,
    DISTRIBUTED_CLASSES,
    EMPTY_IMAGE,
    IMAGE_DIVIDER,
    MODEL_NAME,
    SEED,
    UPSCALER,
    VALUE,
    Link,
    as_link,
    free_ids,
    inputs_of,
    label,
    new_node,
    output_of,
    used_outputs,
    with_inputs,
)
from comfyui_workflow.distributed.sizes import Sizes, divided
from comfyui_workflow.distributed.upscaler import plain_upscaler
from comfyui_workflow.distributed.values import (
    CONSTANTS,
    TEXT,
    as_integer,
    has_own_value,
    model_name,
    value_of,
    values_by_worker,
)
from comfyui_workflow.errors import InvalidGraph
from comfyui_workflow.workflows.graph import Graph, sources

MATH = "ComfyMathExpression"
"""A node of newer ComfyUI versions that computes with numbers which are only known while a workflow runs."""
HELPFUL_CLASSES = DISTRIBUTED_CLASSES | {MATH}
"""Classes with which more workflows can be planned, if all participants have them."""
MOST_DIVISIONS = 10
LONGEST_LITERAL_BATCH = 4096


@dataclass(frozen=True, kw_only=True)
class EmptyBatch:
    """An output without any picture or sound. ComfyUI has no node for it."""

    width: Any = None
    height: Any = None
    """Values or links: the size of the pictures that are not there."""


@dataclass(frozen=True, kw_only=True)
class Value:
    """A value in place of an output."""

    value: Any

    def as_input(self) -> Any:
        """ComfyUI reads a list as a link, unless it is wrapped."""
        return {"__value__": self.value} if isinstance(self.value, list) else self.value


def resolved(
    graph: Graph,
    seed_index: int,
    *,
    installed: Set[str] = frozenset(),
    sizes: Sizes | None = None,
    optional: Set[str] = frozenset(),
    shows_names: bool = False,
    first_free_id: int = 1,
) -> dict[str, Any]:
    """Returns the graph for the participant with this seed index.

    `installed`: node classes that need no replacement, or can be one.
    `sizes`: what is known of outputs of the graph.
    `optional`: nodes that are left out if they get an empty batch.
    `shows_names`: a DistributedModelName also shows its text, as an output of the workflow.
    Raises: InvalidGraph, naming the node.
    """
    ids = free_ids(graph, first_free_id)
    resolution = _Resolution(
        graph, seed_index, ids, installed=installed, sizes=sizes or Sizes(), shows_names=shows_names
    )
    for node_id in TopologicalSorter({node_id: sources(graph, node_id) for node_id in graph}).static_order():
        resolution.visit(node_id, is_optional=node_id in optional)
    return resolution.result()


def runnable(graph: dict[str, Any]) -> dict[str, Any]:
    """Returns the graph. Raises: InvalidGraph if no node of it is left."""
    if not graph:
        raise InvalidGraph("The workflow has only nodes of ComfyUI-Distributed, and so nothing to run")
    return graph


class _Resolution:
    def __init__(
        self,
        graph: Graph,
        seed_index: int,
        ids: Iterator[str],
        *,
        installed: Set[str],
        sizes: Sizes,
        shows_names: bool,
    ) -> None:
        self._graph = graph
        self._seed_index = seed_index
        self._installed = installed
        self._sizes = sizes
        self._shows_names = shows_names
        self._ids = ids
        self._used = used_outputs(graph)
        self._nodes: dict[str, Any] = {}
        self._replaced: dict[tuple[str, int], Value | Link | EmptyBatch] = {}
        self._gone: set[str] = set()
        self._replacements: dict[str, Callable[[str, dict[str, Any]], None]] = {
            SEED: self._seed,
            VALUE: self._value,
            MODEL_NAME: self._model_name,
            EMPTY_IMAGE: self._empty_image,
            IMAGE_DIVIDER: self._image_divider,
            AUDIO_DIVIDER: self._audio_divider,
        }

    def result(self) -> dict[str, Any]:
        """Returns the nodes, those of the given graph in its order."""
        kept = {node_id: self._nodes[node_id] for node_id in self._graph if node_id in self._nodes}
        return {**kept, **self._nodes}

    def visit(self, node_id: str, *, is_optional: bool) -> None:
        node = self._graph[node_id]
        class_type = node["class_type"]
        inputs = {
            name: self._input(node_id, name, value) for name, value in inputs_of(self._graph, node_id).items()
        }
        empty = [name for name, value in inputs.items() if isinstance(value, EmptyBatch)]
        is_divider = class_type in (IMAGE_DIVIDER, AUDIO_DIVIDER)
        if empty and is_optional:
            self._gone.add(node_id)
        elif empty and class_type == "ImageBatch":
            self._batch_with_empty(node_id, inputs)
        elif empty and (not is_divider or class_type in self._installed):
            raise InvalidGraph(f'{label(self._graph, node_id)}: input "{empty[0]}" gets an empty batch')
        elif class_type in self._replacements and not (is_divider and class_type in self._installed):
            self._gone.add(node_id)
            self._replacements[class_type](node_id, inputs)
        else:
            node = with_inputs(node, inputs)
            is_upscaler = class_type == UPSCALER and UPSCALER not in self._installed
            self._nodes[node_id] = plain_upscaler(node) if is_upscaler else node
            self._sizes.learn(node_id, class_type, inputs)

    def _input(self, node_id: str, name: str, value: Any) -> Any:
        """Returns the value of an input: an EmptyBatch, a link, or another value."""
        link = as_link(value)
        if link is None:
            return value
        found = self._replaced.get(output_of(link))
        if found is None and link[0] in self._gone:
            source = label(self._graph, link[0])
            raise InvalidGraph(
                f'{label(self._graph, node_id)}: input "{name}" links to output {link[1]} of {source}, '
                "which has no such output"
            )
        if found is None:
            return value
        return found.as_input() if isinstance(found, Value) else found

    def _constant(self, value: Any) -> Any:
        """Returns the value that a link leads to if the graph shows it; else what is given."""
        link = as_link(value)
        if link is None or link[0] not in self._nodes:
            return value
        node = self._nodes[link[0]]
        name = CONSTANTS.get(node["class_type"])
        inner = node["inputs"].get(name) if name else None
        return value if inner is None or as_link(inner) else inner

    def _needed(self, node_id: str, inputs: Mapping[str, Any], name: str) -> Any:
        if inputs.get(name) is None:
            raise InvalidGraph(f'{label(self._graph, node_id)}: input "{name}" is missing')
        return self._constant(inputs[name])

    def _add(self, class_type: str, title: str, **inputs: Any) -> str:
        node_id = next(self._ids)
        self._nodes[node_id] = new_node(class_type, title, **inputs)
        self._sizes.learn(node_id, class_type, inputs)
        return node_id

    def _computed(self, expression: str, a: Any) -> Link:
        """Returns a link to an integer: the result of an expression of `a`."""
        node_id = next(self._ids)
        self._nodes[node_id] = new_node(MATH, expression)
        self._nodes[node_id]["inputs"] = {"expression": expression, "values.a": a}
        return [node_id, 1]

    def _seed(self, node_id: str, inputs: dict[str, Any]) -> None:
        seed = self._needed(node_id, inputs, "seed")
        link, number = as_link(seed), as_integer(seed)
        if number is not None:
            self._replaced[node_id, 0] = Value(value=number + self._seed_index)
        elif link is not None and self._seed_index == MASTER_INDEX:
            self._replaced[node_id, 0] = link
        elif link is not None and MATH in self._installed:
            self._replaced[node_id, 0] = self._computed(f"a + {self._seed_index}", link)
        else:
            raise InvalidGraph(
                f"{label(self._graph, node_id)}: give its seed as a whole number, not by a link"
            )

    def _value(self, node_id: str, inputs: dict[str, Any]) -> None:
        default = self._needed(node_id, inputs, "default_value")
        by_worker = self._constant(inputs.get("worker_values", "{}"))
        if as_link(by_worker):
            raise InvalidGraph(f'{label(self._graph, node_id)}: give "worker_values" as a text')
        values = values_by_worker(by_worker)
        link = as_link(default)
        if link is None or has_own_value(values, self._seed_index):
            self._replaced[node_id, 0] = Value(value=value_of(default, values, self._seed_index))
        elif values.get("_type", TEXT) == TEXT:
            self._replaced[node_id, 0] = link
        else:
            raise InvalidGraph(f'{label(self._graph, node_id)}: give "default_value" as a value')

    def _model_name(self, node_id: str, inputs: dict[str, Any]) -> None:
        text = self._needed(node_id, inputs, "text")
        link = as_link(text)
        name = link or Value(value=model_name(text))
        self._replaced[node_id, 0] = name
        if self._shows_names:
            source = name.as_input() if isinstance(name, Value) else name
            shown = with_inputs(self._graph[node_id], {"source": source})
            self._nodes[node_id] = {**shown, "class_type": "PreviewAny"}

    def _empty_image(self, node_id: str, inputs: dict[str, Any]) -> None:
        size = {name: self._needed(node_id, inputs, name) for name in ("width", "height")}
        self._replaced[node_id, 0] = EmptyBatch(**size)

    def _batch_with_empty(self, node_id: str, inputs: dict[str, Any]) -> None:
        """ImageBatch scales its second pictures to the size of the first, even if there is no first
        picture."""
        first, second = inputs.get("image1"), inputs.get("image2")
        if not isinstance(first, EmptyBatch) or isinstance(second, EmptyBatch):
            self._gone.add(node_id)
            self._replaced[node_id, 0] = (
                first if isinstance(first, EmptyBatch) else self._link(node_id, first)
            )
            return
        scaled = with_inputs(
            self._graph[node_id],
            {
                "image": self._link(node_id, second),
                "upscale_method": "bilinear",
                "width": first.width,
                "height": first.height,
                "crop": "center",
            },
        )
        self._nodes[node_id] = {**scaled, "class_type": "ImageScale"}
        self._sizes.learn(node_id, "ImageScale", scaled["inputs"])

    def _link(self, node_id: str, value: Any) -> Link:
        link = as_link(value)
        if link is None:
            raise InvalidGraph(f"{label(self._graph, node_id)}: an input is not connected")
        return link

    def _divisions(self, node_id: str, inputs: dict[str, Any]) -> int:
        number = as_integer(self._needed(node_id, inputs, "divide_by"))
        if number is None:
            raise InvalidGraph(f'{label(self._graph, node_id)}: give "divide_by" as a number')
        return max(1, min(number, MOST_DIVISIONS))

    def _used_slots(self, node_id: str) -> list[int]:
        used = {slot for source, slot in self._used if source == node_id}
        return sorted(slot for slot in used if 0 <= slot < MOST_DIVISIONS)

    def _image_divider(self, node_id: str, inputs: dict[str, Any]) -> None:
        divisions, images = self._divisions(node_id, inputs), inputs.get("images")
        if isinstance(images, EmptyBatch):
            for slot in range(MOST_DIVISIONS):
                self._replaced[node_id, slot] = images
            return
        link = self._link(node_id, images)
        total = self._sizes.image_count(link)
        for slot in self._used_slots(node_id):
            if slot >= divisions or (total is not None and slot >= total):
                self._replaced[node_id, slot] = self._no_pictures_of(link)
            elif divisions == 1:
                self._replaced[node_id, slot] = link
            elif total is not None:
                start, length = divided(total, divisions)[slot]
                self._replaced[node_id, slot] = self._pictures(link, start, self._as_length(length))
            elif MATH in self._installed:
                self._replaced[node_id, slot] = self._division(link, divisions, slot)
            else:
                raise InvalidGraph(
                    f"{label(self._graph, node_id)}: the number of its pictures is only known when it runs. "
                    "For that every instance needs a newer ComfyUI (with ComfyMathExpression), or "
                    "ComfyUI-Distributed"
                )

    def _pictures(self, images: Link, start: Any, length: Any) -> Link:
        return [
            self._add("ImageFromBatch", "Part of a batch", image=images, batch_index=start, length=length),
            0,
        ]

    def _as_length(self, length: int) -> Any:
        """Returns the number, or a link to it: ComfyUI checks the range of values, not of links."""
        return (
            length
            if length <= LONGEST_LITERAL_BATCH
            else [self._add("PrimitiveInt", "Length", value=length), 0]
        )

    def _division(self, images: Link, divisions: int, slot: int) -> Link:
        total = [self._add("GetImageSize", "Size of a batch", image=images), 2]
        start = self._computed(f"{slot} * (a // {divisions}) + min({slot}, a % {divisions})", total)
        length = self._computed(f"a // {divisions} + min(1, max(0, a % {divisions} - {slot}))", total)
        return self._pictures(images, start, length)

    def _no_pictures_of(self, images: Link) -> EmptyBatch:
        size = self._add("GetImageSize", "Size of a batch", image=images)
        return EmptyBatch(width=[size, 0], height=[size, 1])

    def _audio_divider(self, node_id: str, inputs: dict[str, Any]) -> None:
        divisions, audio = self._divisions(node_id, inputs), inputs.get("audio")
        if isinstance(audio, EmptyBatch):
            silence = self._add("EmptyAudio", "No audio", duration=1 / 44100, sample_rate=44100, channels=2)
            for slot in range(MOST_DIVISIONS):
                self._replaced[node_id, slot] = [silence, 0]
            return
        link = self._link(node_id, audio)
        sound = self._sizes.sound(link)
        for slot in self._used_slots(node_id):
            if slot >= divisions or (sound is not None and slot >= sound.samples):
                self._replaced[node_id, slot] = EmptyBatch()
            elif divisions == 1:
                self._replaced[node_id, slot] = link
            elif sound is not None:
                start, length = divided(sound.samples, divisions)[slot]
                seconds = {"start_index": start / sound.sample_rate, "duration": length / sound.sample_rate}
                cut = self._add("TrimAudioDuration", "Part of a sound", audio=link, **seconds)
                self._replaced[node_id, slot] = [cut, 0]
            else:
                raise InvalidGraph(
                    f"{label(self._graph, node_id)}: the length of its sound is only known when it runs. For "
                    "that every instance needs ComfyUI-Distributed"
                )
