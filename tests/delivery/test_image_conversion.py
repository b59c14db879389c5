"""Conversion of images: every option has its effect, or is refused with the reason."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.JpegImagePlugin import get_sampling

from comfyui_workflow.concurrency import CancelToken
from comfyui_workflow.delivery import image_conversion
from comfyui_workflow.delivery.conversion_memory import MemoryBudget, options_for
from comfyui_workflow.delivery.image_conversion import NotConverted, convert_image
from comfyui_workflow.errors import InvalidRequest, Stopped
from comfyui_workflow.runs.image_conversion import read_conversion


@pytest.fixture
def noise(tmp_path: Path) -> Path:
    """A picture with an alpha channel, in a directory whose name libvips would take for options."""
    path = tmp_path / "a [n=1]" / "noise.png"
    path.parent.mkdir()
    picture = Image.merge("RGBA", [Image.effect_noise((96, 64), 80) for _ in range(4)])
    picture.save(path)
    return path


def converted(source: Path, format_: str, **options: Any) -> Image.Image:
    target = source.with_name("out")
    target.unlink(missing_ok=True)
    assert convert_image(source, target, read_conversion({"format": format_, "options": options}))
    return Image.open(target)


def size(source: Path, format_: str, **options: Any) -> int:
    converted(source, format_, **options)
    return source.with_name("out").stat().st_size


def test_the_format_is_the_one_that_was_asked_for(noise: Path) -> None:
    for format_, name in (("jpeg", "JPEG"), ("jpg", "JPEG"), ("webp", "WEBP")):
        picture = converted(noise, format_)
        assert (picture.format, picture.size) == (name, (96, 64))


@pytest.mark.parametrize(
    ("format_", "options"),
    [
        ("jpeg", {"quality": 20}),
        ("jpeg", {"progressive": True}),
        ("jpeg", {"chromaSubsampling": "4:4:4"}),
        ("jpeg", {"optimizeCoding": False}),
        ("jpeg", {"mozjpeg": True}),
        ("jpeg", {"trellisQuantisation": True}),
        ("jpeg", {"quality": 20, "overshootDeringing": True, "trellisQuantisation": True}),
        ("jpeg", {"optimizeScans": True}),
        ("jpeg", {"quantisationTable": 3}),
        ("webp", {"quality": 20}),
        ("webp", {"alphaQuality": 10}),
        ("webp", {"lossless": True}),
        ("webp", {"nearLossless": True}),
        ("webp", {"smartSubsample": True}),
        ("webp", {"preset": "drawing"}),
        ("webp", {"effort": 0}),
    ],
)
def test_every_option_changes_the_file(noise: Path, format_: str, options: dict[str, Any]) -> None:
    converted(noise, format_)
    usual = noise.with_name("out").read_bytes()
    converted(noise, format_, **options)
    assert noise.with_name("out").read_bytes() != usual


def test_options_mean_what_they_say(noise: Path) -> None:
    assert get_sampling(converted(noise, "jpeg")) == 2  # 4:2:0
    assert get_sampling(converted(noise, "jpeg", chromaSubsampling="4:4:4")) == 0
    assert converted(noise, "jpeg", progressive=True).info.get("progressive")
    assert not converted(noise, "jpeg").info.get("progressive")
    lossless = converted(noise, "webp", lossless=True).convert("RGBA")
    before = Image.open(noise)
    places = [(x, y) for x in range(96) for y in range(64) if before.getpixel((x, y))[3]]
    assert all(lossless.getpixel(place) == before.getpixel(place) for place in places)
    assert size(noise, "webp", quality=10) < size(noise, "webp", quality=90)


def test_mozjpeg_is_its_four_options_unless_one_says_otherwise() -> None:
    effective = read_conversion({"format": "jpeg", "options": {"mozjpeg": True, "quantisationTable": 1}})
    assert effective.effective_options == {
        "quality": 80,
        "progressive": True,
        "chromaSubsampling": "4:2:0",
        "optimizeCoding": True,
        "mozjpeg": True,
        "trellisQuantisation": True,
        "overshootDeringing": True,
        "optimizeScans": True,
        "quantisationTable": 1,
    }


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"format": "png"}, "format must be one of jpeg, jpg, webp"),
        ({"format": ["webp"]}, "format must be one of jpeg, jpg, webp"),
        ({}, "format must be one of jpeg, jpg, webp"),
        ("webp", "must be an object"),
        ({"format": "webp", "quality": 3}, "quality is unknown"),
        ({"format": "webp", "options": []}, "options must be an object"),
        ({"format": "jpeg", "options": {"lossless": True}}, "options.lossless is not an option of jpeg"),
        ({"format": "webp", "options": {"mozjpeg": True}}, "options.mozjpeg is not an option of webp"),
        (
            {"format": "webp", "options": {"quality": 101}},
            "options.quality must be a whole number from 1",
        ),
        ({"format": "webp", "options": {"quality": True}}, "options.quality must be a whole number"),
        ({"format": "webp", "options": {"quality": 1.5}}, "options.quality must be a whole number"),
        ({"format": "webp", "options": {"lossless": 1}}, "options.lossless must be true or false"),
        ({"format": "webp", "options": {"preset": "x"}}, "options.preset must be one of default, picture"),
        (
            {"format": "jpeg", "options": {"chromaSubsampling": "4:1:1"}},
            "options.chromaSubsampling must",
        ),
    ],
)
def test_what_cannot_be_honoured_is_refused_with_the_reason(given: Any, sentence: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_conversion(given)
    assert str(caught.value).startswith(sentence)


def test_a_whole_number_may_be_written_as_a_decimal() -> None:
    assert read_conversion({"format": "jpg", "options": {"quality": 90.0}}).options == {"quality": 90}


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.gif"])
def test_an_animation_stays_as_it_is(tmp_path: Path, name: str) -> None:
    first = Image.effect_noise((32, 32), 80).convert("RGB")
    first.save(tmp_path / name, save_all=True, append_images=[first.rotate(90)])
    target = tmp_path / "out"
    assert not convert_image(tmp_path / name, target, read_conversion({"format": "webp"}))
    assert not target.exists()


@pytest.mark.parametrize(
    "content", [b"\x89PNG\r\n\x1a\nbroken", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b""]
)
def test_what_is_no_image_says_so_and_leaves_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(NotConverted):
        convert_image(tmp_path / "a.png", tmp_path / "out", read_conversion({"format": "webp"}))
    assert not (tmp_path / "out").exists()


def test_half_of_an_image_is_no_image(noise: Path) -> None:
    noise.write_bytes(noise.read_bytes()[: noise.stat().st_size // 2])
    with pytest.raises(NotConverted):
        convert_image(noise, noise.with_name("out"), read_conversion({"format": "jpeg"}))
    assert not noise.with_name("out").exists()


def test_it_looks_as_before(tmp_path: Path) -> None:
    """Sixteen bits become eight, a rotation in the metadata is applied, transparency becomes black."""
    Image.new("I;16", (8, 8), 0x8000).save(tmp_path / "deep.png")
    assert converted(tmp_path / "deep.png", "webp", lossless=True).convert("L").getpixel((0, 0)) == 0x80
    exif = Image.Exif()
    exif[0x112] = 6
    Image.new("RGB", (8, 4)).save(tmp_path / "lying.jpg", exif=exif)
    assert converted(tmp_path / "lying.jpg", "jpeg").size == (4, 8)
    Image.new("RGBA", (8, 8), (255, 255, 255, 0)).save(tmp_path / "clear.png")
    assert converted(tmp_path / "clear.png", "jpeg").convert("RGB").getpixel((0, 0)) == (0, 0, 0)


MEASURE = """
import re, sys
from pathlib import Path
from comfyui_workflow.delivery.image_conversion import convert_image
from comfyui_workflow.runs.image_conversion import read_conversion
assert convert_image(Path(sys.argv[1]), Path(sys.argv[2]), read_conversion({"format": "jpeg"}))
print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""
"""The largest memory in KB. That of `getrusage` includes the parent at the time of the fork."""


def test_a_large_image_becomes_a_jpeg_with_little_memory(tmp_path: Path) -> None:
    """81 million pixels: 243 MB as they are."""
    pyvips = pytest.importorskip("pyvips")
    source, target = tmp_path / "a.png", tmp_path / "a.jpeg"
    pyvips.Image.black(9000, 9000, bands=3).pngsave(str(source), compression=1)
    command = [sys.executable, "-c", MEASURE, str(source), str(target)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    assert int(done.stdout) < 220_000
    assert Image.open(target).size == (9000, 9000)


@pytest.mark.parametrize(
    ("format_", "options"), [("jpeg", {}), ("jpeg", {"progressive": True}), ("webp", {"lossless": True})]
)
def test_an_image_that_needs_too_much_memory_is_refused_with_advice(
    noise: Path, monkeypatch: pytest.MonkeyPatch, format_: str, options: dict[str, Any]
) -> None:
    monkeypatch.setattr(image_conversion, "MEMORY", MemoryBudget(6 * 96 * 64 - 1))
    with pytest.raises(NotConverted, match=r"needs 0\.0 GB of memory as .* jpeg without optimizeCoding"):
        converted(noise, format_, **options)
    assert converted(noise, "jpeg", optimizeCoding=False).size == (96, 64)


def test_the_default_of_a_large_jpeg_gives_way_and_a_set_option_does_not() -> None:
    for given in ({"optimizeCoding": True}, {"mozjpeg": True}):
        assert options_for(read_conversion({"format": "jpeg", "options": given}), 10**8)["optimizeCoding"]
    plain = read_conversion({"format": "jpeg"})
    assert [options_for(plain, count)["optimizeCoding"] for count in (10**7, 10**8)] == [True, False]


def test_conversions_wait_for_memory_and_can_be_stopped() -> None:
    budget, stop, begun = MemoryBudget(100), CancelToken(), list[int]()

    def use(count: int, token: CancelToken) -> None:
        with budget.taken(count, token):
            begun.append(count)

    with ThreadPoolExecutor(3) as pool:
        with budget.taken(60, CancelToken()):
            stopped, waiting = pool.submit(use, 50, stop), pool.submit(use, 500, CancelToken())
            pool.submit(use, 40, CancelToken()).result(30)
            stop.cancel()
            with pytest.raises(Stopped):
                stopped.result(30)
            assert begun == [40]
        waiting.result(30)
    assert begun == [40, 500]
