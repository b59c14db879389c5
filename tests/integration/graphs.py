"""Graphs for the tests, of node classes the sandbox has."""

from typing import Any

Graph = dict[str, Any]


def node(class_type: str, /, **inputs: object) -> Graph:
    return {"class_type": class_type, "inputs": inputs}


def painted(color: int = 0x336699, *, size: int = 32, batch: int = 1, prefix: str = "out") -> Graph:
    """An image of one colour, inverted and saved."""
    return {
        "1": node("EmptyImage", width=size, height=size, batch_size=batch, color=color),
        "2": node("ImageInvert", image=["1", 0]),
        "3": node("SaveImage", images=["2", 0], filename_prefix=prefix),
    }


def slow(color: int = 1, *, steps: int = 10, seconds_per_step: float = 0.1, prefix: str = "slow") -> Graph:
    graph = painted(color, prefix=prefix)
    graph["2"] = node("SandboxSlow", image=["1", 0], steps=steps, seconds_per_step=seconds_per_step)
    return graph


def loaded(image: str, *, prefix: str = "loaded") -> Graph:
    return {
        "1": node("LoadImage", image=image),
        "2": node("ImageInvert", image=["1", 0]),
        "3": node("SaveImage", images=["2", 0], filename_prefix=prefix),
    }


def failing(message: str = "it broke") -> Graph:
    graph = painted(5, prefix="failing")
    graph["2"] = node("SandboxRaise", image=["1", 0], message=message)
    return graph
