"""Saved values of the node pack VideoHelperSuite."""

from typing import Any

import pytest

from tests.workflows.making import class_of, file, inputs_of, node, socket

FORMATS = {
    "video/h264": [
        ["pix_fmt", ["yuv420p", "yuv420p10le"]],
        ["crf", "INT", {"default": 19}],
        ["save_metadata", "BOOLEAN", {"default": True}],
        ["cut", "INT"],
        "not a list",
        ["no type"],
    ],
    "image/webp": [["lossless", "BOOLEAN", {"default": True}]],
    "image/gif": [],
    "odd": 5,
}
PACK = {"python_module": "custom_nodes.pack"}
LOADED = {
    "video": ["STRING", {}],
    "force_rate": ["FLOAT", {"default": 0}],
    "custom_width": ["INT", {"default": 0}],
    "custom_height": ["INT", {"default": 0}],
    "frame_load_cap": ["INT", {"default": 0}],
    "skip_first_frames": ["INT", {"default": 0}],
    "select_every_nth": ["INT", {"default": 1}],
}
COMBINED = {
    "images": ["IMAGE"],
    "frame_rate": ["FLOAT", {"default": 8}],
    "loop_count": ["INT", {"default": 0}],
    "filename_prefix": ["STRING", {"default": "AnimateDiff"}],
    "format": [list(FORMATS), {"formats": FORMATS}],
    "pingpong": ["BOOLEAN", {"default": False}],
    "save_output": ["BOOLEAN", {"default": True}],
}
CLASSES = {
    "Frame": class_of(output=["IMAGE", "INT"]),
    "VHS_VideoCombine": class_of(COMBINED, **PACK),
    "VHS_LoadVideo": class_of(LOADED, **PACK),
    "VHS_BatchManager": class_of({"frames_per_batch": ["INT", {"default": 16}]}, **PACK),
    "VHS_LoadAudioUpload": class_of(
        {"audio": ["STRING", {}]},
        {"start_time": ["FLOAT", {"default": 0, "widgetType": "VHSTIMESTAMP"}]},
        **PACK,
    ),
}
COMMON = {"frame_rate": 8, "loop_count": 0, "filename_prefix": "v", "pingpong": False, "save_output": True}


def sent(kind: str, values: Any, *inputs: Any) -> Any:
    links = [(number, 9, slot, 1, slot) for number, slot in ((1, 0), (2, 1))]
    workflow = file(node(9, "Frame"), node(1, kind, values, inputs=list(inputs)), links=links)
    return inputs_of(workflow, CLASSES)["1"]


H264 = {"pix_fmt": "yuv420p", "crf": 19, "save_metadata": True}


@pytest.mark.parametrize(
    ("chosen", "saved", "expected"),
    [
        ("video/h264", {}, H264),
        ("video/h264", {"crf": 30, "videopreview": {"params": {}}, "other": 1}, {**H264, "crf": 30}),
        ("image/webp", {"crf": 30, "lossless": False}, {"lossless": False}),
        ("image/gif", {"crf": 30}, {}),
        ("odd", {"crf": 30}, {}),
        ("of another machine", {"crf": 30}, {}),
    ],
)
def test_the_widgets_of_the_chosen_format_are_sent_and_no_others(
    chosen: str, saved: Any, expected: Any
) -> None:
    assert sent("VHS_VideoCombine", {**COMMON, "format": chosen, **saved}) == {
        **COMMON,
        "format": chosen,
        **expected,
    }


def test_the_count_of_a_batch_is_sent() -> None:
    values = {"frames_per_batch": 16, "count": 2, "shown": "x"}
    assert sent("VHS_BatchManager", values) == {"frames_per_batch": 16, "count": 2}
    assert sent("VHS_BatchManager", {"frames_per_batch": 16}) == {"frames_per_batch": 16}


def test_a_widget_of_the_format_can_be_linked() -> None:
    found = sent(
        "VHS_VideoCombine",
        {**COMMON, "format": "video/h264"},
        socket("images", 1, "IMAGE"),
        socket("crf", 2, "INT", widget=True),
    )
    assert (found["images"], found["crf"]) == (["9", 0], ["9", 1])


def test_the_date_in_the_name_of_a_video_is_replaced() -> None:
    values = {**COMMON, "format": "image/gif", "filename_prefix": "%date:yyyy%/v"}
    assert sent("VHS_VideoCombine", values)["filename_prefix"] == "2025/v"


def test_an_old_file_has_other_names_or_a_list() -> None:
    old = {name: value for name, value in COMMON.items() if name != "save_output"}
    named = sent("VHS_VideoCombine", {**old, "format": "image/gif", "save_image": False})
    assert (named["save_output"], named["pingpong"]) == (False, False)
    row = sent("VHS_VideoCombine", [8, 0, "v", "image/gif", True, False])
    assert (row["save_output"], row["pingpong"], row["format"]) == (False, True, "image/gif")
    short = sent("VHS_VideoCombine", [9, 3])
    assert (short["frame_rate"], short["loop_count"], short["filename_prefix"]) == (9, 3, "AnimateDiff")


@pytest.mark.parametrize(
    ("force_size", "size"),
    [
        ("Disabled", (0, 0)),
        ("Custom Width", (640, 0)),
        ("Custom Height", (0, 480)),
        ("Custom", (640, 480)),
        ("512x?", (512, 0)),
        ("?x384", (0, 384)),
        ("256x384", (256, 384)),
        ("axb", (0, 0)),
        (5, (640, 480)),
        (None, (640, 480)),
    ],
)
def test_the_single_size_of_old_files_is_width_and_height(force_size: Any, size: tuple[int, int]) -> None:
    values = {"video": "a.mp4", "custom_width": 640, "custom_height": 480, "force_size": force_size}
    found = sent("VHS_LoadVideo", values)
    assert (found["custom_width"], found["custom_height"]) == size
    assert "force_size" not in found


def test_the_list_of_an_old_loader_has_the_size_too() -> None:
    assert sent("VHS_LoadVideo", ["a.mp4", 12, "256x?", 5, 6, 2]) == {
        "video": "a.mp4",
        "force_rate": 12,
        "custom_width": 256,
        "custom_height": 0,
        "frame_load_cap": 5,
        "skip_first_frames": 6,
        "select_every_nth": 2,
    }


def test_a_time_stamp_is_a_widget_of_the_pack() -> None:
    values = {"audio": "a.mp3", "start_time": 3.5, "audiopreview": {}}
    assert sent("VHS_LoadAudioUpload", values) == {"audio": "a.mp3", "start_time": 3.5}
