"""Small graphs for the sandbox."""

from typing import Any

Graph = dict[str, Any]


def slow_graph(*, steps: int = 3, seed: int = 1, prefix: str = "slow") -> Graph:
    """Returns a graph of a node with steps, a node that inverts, and a node that saves."""
    widgets = {"seconds": 1.0, "steps": steps, "preview": "none", "preview_px": 32, "seed": seed}
    return {
        "1": {"class_type": "LabSleep", "inputs": widgets},
        "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": prefix}},
    }


def quick_graph(*, color: int = 1, prefix: str = "quick") -> Graph:
    widgets = {"width": 64, "height": 48, "batch_size": 1, "color": color}
    return {
        "1": {"class_type": "EmptyImage", "inputs": widgets},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": prefix}},
    }


def graph_with_a_link_to_nowhere() -> Graph:
    """Returns a graph that passes validation, because the schema does not have the input, and then kills the
    worker."""
    graph = quick_graph()
    graph["2"]["inputs"]["bogus"] = ["99", 0]
    return graph
