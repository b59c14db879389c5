"""Builders of media files with texts in their metadata, as ComfyUI and ffmpeg write them."""

import json
import struct
from collections.abc import Mapping


def box(kind: bytes, *contents: bytes) -> bytes:
    content = b"".join(contents)
    return struct.pack(">I4s", 8 + len(content), kind) + content


def mp4(texts: Mapping[str, str], *, is_quicktime: bool = False, is_long: bool = False) -> bytes:
    """`keys` and `ilst` as with `-movflags use_metadata_tags`; the video data comes first."""
    names = b"".join(box(b"mdta", name.encode()) for name in texts)
    items = b"".join(
        box(struct.pack(">I", number), box(b"data", struct.pack(">II", 1, 0), value.encode()))
        for number, value in enumerate(texts.values(), start=1)
    )
    handler = box(b"hdlr", b"\0" * 8, b"mdta", b"\0" * 13)
    content = handler + box(b"keys", struct.pack(">II", 0, len(texts)), names) + box(b"ilst", items)
    meta = box(b"meta", content) if is_quicktime else box(b"udta", box(b"meta", b"\0" * 4, content))
    return _movie(meta, is_long=is_long)


def commented_mp4(comment: str) -> bytes:
    item = box(b"\xa9cmt", box(b"data", struct.pack(">II", 1, 0), comment.encode()))
    handler = box(b"hdlr", b"\0" * 8, b"mdir", b"\0" * 13)
    return _movie(box(b"udta", box(b"meta", b"\0" * 4, handler, box(b"ilst", item))))


def _movie(meta: bytes, *, is_long: bool = False) -> bytes:
    data = b"\0" * 50
    mdat = struct.pack(">I4sQ", 1, b"mdat", 16 + len(data)) + data if is_long else box(b"mdat", data)
    return box(b"ftyp", b"isom\0\0\2\0isomiso2mp41") + mdat + box(b"moov", box(b"mvhd", b"\0" * 100), meta)


def element(number: bytes, *contents: bytes, is_size_known: bool = True) -> bytes:
    content = b"".join(contents)
    size = struct.pack(">Q", len(content) | 1 << 56) if is_size_known else b"\x01" + b"\xff" * 7
    return number + size + content


def webm(texts: Mapping[str, str], *, is_live: bool = False) -> bytes:
    """The tags follow the clusters. In a live recording, segment and cluster are of unknown size."""
    simple_tags = (
        element(b"\x67\xc8", element(b"\x45\xa3", name.encode()), element(b"\x44\x87", value.encode()))
        for name, value in texts.items()
    )
    tags = element(b"\x12\x54\xc3\x67", element(b"\x73\x73", element(b"\x63\xc0"), *simple_tags))
    cluster = element(b"\x1f\x43\xb6\x75", element(b"\xa3", b"\0" * 50), is_size_known=not is_live)
    segment = element(b"\x18\x53\x80\x67", cluster, tags, is_size_known=not is_live)
    return element(b"\x1a\x45\xdf\xa3", element(b"\x42\x82", b"webm")) + segment


def _comments(texts: Mapping[str, str]) -> bytes:
    lines = [f"{name}={value}".encode() for name, value in texts.items()]
    written = b"".join(struct.pack("<I", len(line)) + line for line in lines)
    return struct.pack("<I", 4) + b"Lavf" + struct.pack("<I", len(lines)) + written


def flac(texts: Mapping[str, str]) -> bytes:
    comments = _comments(texts)
    information = b"\x00" + (34).to_bytes(3, "big") + b"\0" * 34
    return b"fLaC" + information + b"\x84" + len(comments).to_bytes(3, "big") + comments + b"\xff\xf8"


def opus(texts: Mapping[str, str]) -> bytes:
    """The comments are longer than a page."""
    packet, pages = b"OpusTags" + _comments(texts), [_page([19], b"OpusHead" + b"\0" * 11)]
    lengths = [255] * (len(packet) // 255) + [len(packet) % 255]
    for at in range(0, len(lengths), 200):
        some = lengths[at : at + 200]
        pages.append(_page(some, packet[: sum(some)]))
        packet = packet[sum(some) :]
    return b"".join(pages)


def _page(lengths: list[int], content: bytes) -> bytes:
    return b"OggS" + b"\0" * 22 + bytes([len(lengths), *lengths]) + content


def mp3(texts: Mapping[str, str], *, version: int = 4) -> bytes:
    def size(count: int) -> bytes:
        if version < 4:
            return struct.pack(">I", count)
        return bytes((count >> shift) & 0x7F for shift in (21, 14, 7, 0))

    encoding, codec = (b"\x03", "utf-8") if version >= 4 else (b"\x01", "utf-16")
    frames = b""
    for name, value in texts.items():
        content = encoding + f"{name}\0".encode(codec) + value.encode(codec)
        frames += b"TXXX" + size(len(content)) + b"\0\0" + content
    count = len(frames) + 10
    whole = bytes((count >> shift) & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3" + bytes([version, 0, 0]) + whole + frames + b"\0" * 10 + b"\xff\xfb"


def glb(texts: Mapping[str, str]) -> bytes:
    content = json.dumps({"asset": {"version": "2.0", "extras": dict(texts)}}).encode()
    content += b" " * (-len(content) % 4)
    return b"glTF" + struct.pack("<III4s", 2, 20 + len(content), len(content), b"JSON") + content


def safetensors(texts: Mapping[str, str]) -> bytes:
    tensor = {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}
    header = json.dumps({"__metadata__": dict(texts), "latent": tensor}).encode()
    return struct.pack("<Q", len(header)) + header + b"\0"


def svg(texts: Mapping[str, str]) -> bytes:
    inner = json.dumps({name: json.loads(value) for name, value in texts.items()}, indent=2)
    return f'<svg xmlns="x">\n<metadata><![CDATA[\n{inner}\n]]></metadata></svg>'.encode()
