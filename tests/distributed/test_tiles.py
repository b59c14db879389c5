"""Tiles are cut where ComfyUI-Distributed cuts them: recorded from its own functions."""

import json
from pathlib import Path
from typing import Any

import pytest

from comfyui_workflow.distributed.tiles import tiles

RECORDED = [
    json.loads(line) for line in (Path(__file__).parent / "recorded/tiles.jsonl").read_text().splitlines()
]
"""Each tile: x, y, the four sides of the cut, width and height of the picture that is sampled."""


@pytest.mark.parametrize("case", RECORDED)
def test_tiles_are_cut_as_the_plugin_cuts_them(case: dict[str, Any]) -> None:
    found = tiles(tuple(case["image"]), tuple(case["tile"]), case["padding"], uniform=case["uniform"])
    assert [[tile.x, tile.y, *tile.cut, *tile.process_size] for tile in found] == case["tiles"]


def test_tile_sizes_are_multiples_of_eight() -> None:
    assert tiles((520, 64), (516, 60), 0, uniform=False) == tiles((520, 64), (512, 64), 0, uniform=False)
