"""Several PNG files as one animated PNG, read back with Pillow."""

import io
import random
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image, ImageSequence, PngImagePlugin

from comfyui_workflow.distributed.apng import Png, groups, read_png, write_animation
from comfyui_workflow.errors import CollectedFileDamaged


def noise(size: tuple[int, int], mode: str, seed: int) -> Image.Image:
    """A picture with every value of a byte, fully transparent pixels among them."""
    count = size[0] * size[1] * len(mode)
    return Image.frombytes(mode, size, random.Random(seed).randbytes(count))


def saved(directory: Path, picture: Image.Image, name: str, **options: object) -> Path:
    path = directory / name
    picture.save(path, "PNG", **options)
    return path


def animation(pictures: list[Png]) -> bytes:
    target = io.BytesIO()
    write_animation(pictures, target)
    return target.getvalue()


def frames(content: bytes) -> list[Image.Image]:
    with Image.open(io.BytesIO(content)) as image:
        return [frame.copy() for frame in ImageSequence.Iterator(image)]


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_every_frame_is_its_picture(tmp_path: Path, mode: str, count: int) -> None:
    pictures = [noise((31, 17), mode, seed) for seed in range(count)]
    paths = [saved(tmp_path, picture, f"{number}.png") for number, picture in enumerate(pictures)]
    written = frames(animation([read_png(path) for path in paths]))
    assert [frame.mode for frame in written] == [mode] * count
    assert [frame.tobytes() for frame in written] == [picture.tobytes() for picture in pictures]


def test_data_of_many_chunks_and_texts_are_taken(tmp_path: Path) -> None:
    texts = PngImagePlugin.PngInfo()
    texts.add_text("prompt", "{}")
    pictures = [noise((200, 150), "RGB", seed) for seed in range(2)]
    paths = [saved(tmp_path, each, f"{n}.png", pnginfo=texts) for n, each in enumerate(pictures)]
    paths = [in_pieces(path) for path in paths]
    content = animation([read_png(path) for path in paths])
    assert b"tEXt" not in content
    assert [frame.tobytes() for frame in frames(content)] == [each.tobytes() for each in pictures]
    assert read_again(tmp_path, content).count == 2


def read_again(directory: Path, content: bytes) -> Png:
    path = directory / "again.png"
    path.write_bytes(content)
    return read_png(path)


def chunks(content: bytes) -> list[tuple[bytes, bytes]]:
    found, position = [], 8
    while position < len(content):
        length = int.from_bytes(content[position : position + 4], "big")
        found.append((content[position + 4 : position + 8], content[position + 8 : position + 8 + length]))
        position += 12 + length
    return found


def png_of(parts: list[tuple[bytes, bytes]]) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in parts
    )


def in_pieces(path: Path) -> Path:
    """Rewrites a file with small and empty data chunks."""
    parts: list[tuple[bytes, bytes]] = []
    for kind, content in chunks(path.read_bytes()):
        step = 777 if kind == b"IDAT" else len(content) or 1
        parts += [(kind, content[start : start + step]) for start in range(0, len(content) or 1, step)]
        parts += [(b"IDAT", b"")] if kind == b"IDAT" else []
    path.write_bytes(png_of(parts))
    return path


def test_the_order_stays_and_only_equal_neighbours_are_joined(tmp_path: Path) -> None:
    sizes = [(4, 4), (4, 4), (8, 4), (4, 4), (4, 4)]
    paths = [saved(tmp_path, noise(size, "RGB", n), f"{n}.png") for n, size in enumerate(sizes)]
    found = groups([read_png(path) for path in paths])
    assert [[png.path.name for png in group] for group in found] == [
        ["0.png", "1.png"],
        ["2.png"],
        ["3.png", "4.png"],
    ]


def test_pictures_that_are_not_plain_stay_alone(tmp_path: Path) -> None:
    plain = saved(tmp_path, noise((4, 4), "RGB", 0), "plain.png")
    palette = saved(tmp_path, noise((4, 4), "RGB", 1).convert("P"), "palette.png")
    deep = saved(tmp_path, Image.new("I;16", (4, 4), 40000), "deep.png")
    clear = saved(tmp_path, noise((4, 4), "RGB", 2), "clear.png", transparency=(1, 2, 3))
    with Image.open(plain) as image:
        turned = saved(tmp_path, image, "turned.png", exif=Image.Exif())
    interlaced = tmp_path / "interlaced.png"
    parts = chunks(plain.read_bytes())
    interlaced.write_bytes(png_of([(b"IHDR", parts[0][1][:-1] + b"\x01"), *parts[1:]]))
    moving = tmp_path / "moving.png"
    moving.write_bytes(animation([read_png(plain), read_png(plain)]))
    alone = [palette, deep, clear, interlaced, moving, *([turned] if b"eXIf" in turned.read_bytes() else [])]
    for path in alone:
        assert groups([read_png(path), read_png(path)]) == [(read_png(path),), (read_png(path),)], path.name
    assert [read_png(path).has_alpha for path in (plain, palette, clear)] == [False, False, True]
    assert [read_png(path).count for path in (plain, moving)] == [1, 2]


def test_a_single_picture_stays_as_it_is(tmp_path: Path) -> None:
    path = saved(tmp_path, noise((4, 4), "RGB", 1).convert("P"), "palette.png")
    assert animation([read_png(path)]) == path.read_bytes()


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: b"hello",
        lambda content: content[:-20],
        lambda content: content[:40],
        lambda content: content[:8],
        lambda content: content[:-12],
        lambda content: b"\xff\xd8" + content,
        lambda content: png_of([(b"IHDR", b"short"), *chunks(content)[1:]]),
        lambda content: png_of([chunks(content)[0], (b"IEND", b"")]),
        lambda content: png_of([(b"IHDR", bytes(13)), *chunks(content)[1:]]),
        lambda content: content[:8] + b"\xff\xff\xff\xff" + content[12:],
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, damage: object) -> None:
    path = saved(tmp_path, noise((9, 9), "RGB", 1), "part_00001_.png")
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(CollectedFileDamaged, match=r"part_00001_\.png"):
        read_png(path)


def test_a_changed_byte_of_the_picture_is_noticed(tmp_path: Path) -> None:
    paths = [saved(tmp_path, noise((9, 9), "RGB", n), f"{n}.png") for n in range(2)]
    pictures = [read_png(path) for path in paths]
    content = bytearray(paths[1].read_bytes())
    content[content.index(b"IDAT") + 20] ^= 1
    paths[1].write_bytes(content)
    with pytest.raises(CollectedFileDamaged, match=r"1\.png is damaged"):
        animation(pictures)


def test_forty_pictures_are_joined_without_decoding_them(tmp_path: Path) -> None:
    """The data need not be a picture: it is copied."""
    row = random.Random(1).randbytes(1 << 17)
    header = struct.pack(">IIBBBBB", 2048, 2048, 8, 2, 0, 0, 0)
    path = tmp_path / "large.png"
    path.write_bytes(png_of([(b"IHDR", header), *[(b"IDAT", row)] * 3, (b"IEND", b"")]))
    target = tmp_path / "all.png"
    with target.open("wb") as file:
        write_animation([read_png(path)] * 40, file)
    assert target.stat().st_size > 40 * 3 * len(row)
    assert read_png(target).count == 40
