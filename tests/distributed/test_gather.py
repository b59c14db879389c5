"""The graph with which the master puts the files of all parts together."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from comfyui_workflow.distributed.flac import read_flac
from comfyui_workflow.distributed.plan import (
    AudioFile,
    Collected,
    ImageFile,
    Participant,
    Plan,
    audio_file,
    gather_graph,
    gather_notices,
    make_plan,
)
from comfyui_workflow.errors import CollectedFileDamaged, InvalidRequest
from tests.distributed.rendering import collect, paths, run
from tests.distributed.test_apng import noise
from tests.sandbox.running_comfyui import RunningComfyUI

PEOPLE = (
    Participant(participant_id="m", is_master=True),
    Participant(participant_id="a"),
)


@pytest.fixture(scope="module")
def comfyui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningComfyUI]:
    with RunningComfyUI(tmp_path_factory.mktemp("comfyui")) as running:
        yield running


def plan_with(**inputs: Any) -> Plan:
    graph = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
        "2": {"class_type": "EmptyAudio", "inputs": {"duration": 1.0, "sample_rate": 8000, "channels": 2}},
        "3": {"class_type": "DistributedCollector", "inputs": {"images": ["1", 0], **inputs}},
        "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "all"}},
        "5": {"class_type": "SaveAudio", "inputs": {"audio": ["3", 1], "filename_prefix": "all"}},
    }
    without = {node_id: node for node_id, node in graph.items() if node_id not in ("2", "5")}
    return make_plan(graph if inputs else without, PEOPLE)


def made_of(comfyui: RunningComfyUI, pictures: list[Image.Image], directory: Path) -> list[Image.Image]:
    """Returns what the master saves of these pictures of the parts."""
    files = [directory / f"{number}.png" for number in range(len(pictures))]
    for path, picture in zip(files, pictures, strict=True):
        picture.save(path)
    outputs = run(comfyui, gather_graph(plan_with(), {"3": collect(comfyui, "3", files)}))
    made = []
    for path in paths(comfyui, outputs["4"]):
        with Image.open(path) as image:
            made.append(image.copy())
    return made


def contents(pictures: list[Image.Image]) -> list[tuple[str, tuple[int, int], bytes]]:
    return [(picture.mode, picture.size, picture.tobytes()) for picture in pictures]


def test_every_colour_and_every_alpha_is_kept(comfyui: RunningComfyUI, tmp_path: Path) -> None:
    shades = bytes(value for alpha in range(256) for value in (alpha, 255 - alpha, alpha * 7 % 256, alpha))
    pictures = [Image.frombytes("RGBA", (256, 1), shades), noise((256, 1), "RGBA", 1)]
    assert contents(made_of(comfyui, pictures, tmp_path)) == contents(pictures)


def test_pictures_without_alpha_get_one_beside_pictures_with_it(
    comfyui: RunningComfyUI, tmp_path: Path
) -> None:
    pictures = [noise((9, 7), "RGB", 1), noise((9, 7), "RGBA", 2), noise((9, 7), "RGB", 3)]
    wanted = [picture.convert("RGBA") for picture in pictures]
    assert contents(made_of(comfyui, pictures, tmp_path)) == contents(wanted)


def test_many_pictures_are_one_loader(comfyui: RunningComfyUI, tmp_path: Path) -> None:
    pictures = [noise((16, 16), "RGB", seed) for seed in range(40)]
    assert contents(made_of(comfyui, pictures, tmp_path)) == contents(pictures)
    file = ImageFile(name="all.png", width=16, height=16, count=40)
    graph = gather_graph(plan_with(), {"3": Collected(images=(file,))})
    assert [node["class_type"] for node in graph.values()] == ["SaveImage", "LoadImage"]


def test_pictures_of_another_size_are_scaled_and_a_notice_says_so(
    comfyui: RunningComfyUI, tmp_path: Path
) -> None:
    pictures = [noise((8, 8), "RGB", 1), Image.new("RGB", (16, 8), (5, 6, 7)), noise((8, 8), "RGB", 2)]
    made = made_of(comfyui, pictures, tmp_path)
    assert contents(made) == contents([pictures[0], Image.new("RGB", (8, 8), (5, 6, 7)), pictures[2]])
    files = tuple(ImageFile(name="x", width=width, height=8, has_alpha=width == 16) for width in (8, 16, 8))
    assert gather_notices(plan_with(), {"3": Collected(images=files)}) == (
        "Node 3 (DistributedCollector): pictures of 16x8 are scaled to the first size, 8x8",
        "Node 3 (DistributedCollector): pictures without an alpha channel get one",
    )


@pytest.mark.parametrize("collected", [{}, {"3": Collected()}, {"9": Collected()}])
def test_nothing_collected_is_refused(collected: dict[str, Collected]) -> None:
    with pytest.raises(InvalidRequest, match=r"Node 3 \(DistributedCollector\): no pictures were collected"):
        gather_graph(plan_with(), collected)


def sound(channels: int, sample_rate: int = 8000) -> AudioFile:
    return AudioFile(name=f"{channels}.flac", channels=channels, sample_rate=sample_rate, samples=100)


@pytest.mark.parametrize(
    ("sounds", "classes"),
    [
        ((), ["EmptyAudio"]),
        ((sound(1),), ["LoadAudio"]),
        ((sound(2), sound(2)), ["LoadAudio", "LoadAudio", "AudioConcat"]),
        ((sound(1), sound(1)), ["LoadAudio", "LoadAudio", "AudioConcat", "SplitAudioChannels"]),
        ((sound(1), sound(2)), ["LoadAudio", "LoadAudio", "AudioConcat"]),
    ],
)
def test_sounds_follow_each_other(sounds: tuple[AudioFile, ...], classes: list[str]) -> None:
    plan = plan_with(audio=["2", 0])
    image = ImageFile(name="a.png", width=8, height=8)
    graph = gather_graph(plan, {"3": Collected(images=(image,), audio=sounds)})
    assert [node["class_type"] for node in graph.values()] == [
        "SaveImage",
        "SaveAudio",
        "LoadImage",
        *classes,
    ]
    assert graph["5"]["inputs"]["audio"] == [list(graph)[-1], 0]


def test_a_notice_says_that_sounds_are_converted() -> None:
    plan = plan_with(audio=["2", 0])
    for other in (sound(2), sound(1, 44100)):
        files = Collected(audio=(sound(1), other))
        assert "converted" in gather_notices(plan, {"3": files})[0]
    assert gather_notices(plan, {"3": Collected(audio=(sound(1), sound(1)))}) == ()


@pytest.mark.parametrize(
    ("rate", "channels", "samples"), [(8000, 1, 5), (44100, 2, 2**36 - 1), (192000, 8, 0)]
)
@pytest.mark.parametrize("is_last", [b"\x00", b"\x80"])
def test_the_header_of_a_sound(
    tmp_path: Path, rate: int, channels: int, samples: int, is_last: bytes
) -> None:
    packed = (rate << 44 | (channels - 1) << 41 | 15 << 36 | samples).to_bytes(8, "big")
    path = tmp_path / "a.flac"
    path.write_bytes(b"fLaC" + is_last + b"\x00\x00\x22" + bytes(10) + packed + bytes(16) + b"frames")
    assert audio_file("in/a.flac", read_flac(path)) == AudioFile(
        name="in/a.flac", channels=channels, sample_rate=rate, samples=samples
    )
    path.write_bytes(path.read_bytes()[:41])
    with pytest.raises(CollectedFileDamaged, match=r"a\.flac is not a whole FLAC file"):
        read_flac(path)
    path.write_bytes(b"RIFF" + bytes(60))
    with pytest.raises(CollectedFileDamaged, match=r"a\.flac"):
        read_flac(path)
