"""Detection of file types by content."""

import gzip
import json
import struct
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from comfyui_workflow.files.file_types import HEAD_BYTES, InputKind, kind_of
from comfyui_workflow.files.sensitive_paths import (
    holds_private_key,
    is_key_name,
    reason_not_to_use,
)


def picture(format_name: str) -> bytes:
    out = BytesIO()
    Image.new("RGB", (16, 16)).save(out, format_name)
    return out.getvalue()


def safetensors() -> bytes:
    header = json.dumps({"latent_tensor": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(4)


OBJ = b"# Blender\nmtllib a.mtl\no Cube\nv 1.0 1.0 -1.0\nv 1 2e-3 3\nvn 0 0 1\nf 1//1 2//1 3//1\n"
EXAMPLES = {
    InputKind.IMAGE: [
        *map(picture, ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM", "JPEG2000", "ICO")),
        b"\x76\x2f\x31\x01\x02\0\0\0" + b"channels\0",
        b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 1 +X 1\n\x02\x02\0\0",
        b"P2\n# made by hand\n1 1\n255\n7\n",
        bytes(60) + b"TRUEVISION-XFILE.\0",
        *(b"\0\0\0\x18ftyp" + brand + bytes(200) for brand in (b"heic", b"heix", b"mif1", b"msf1", b"avis")),
        b"II+\0\x08\0\0\0" + bytes(100),
    ],
    InputKind.VIDEO: [
        b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41" + bytes(200),
        b"\0\0\0\x14ftypqt  \0\0\2\0qt  " + bytes(200),
        *(b"\0\0\0\x18ftyp" + brand + bytes(200) for brand in (b"iso5", b"dash", b"M4V ", b"3gp5", b"XAVC")),
        b"\0\0\0\x08wide\0\0\0\x64mdat" + bytes(92),
        (b"\x47" + bytes(187)) * 4,
        b"\x1a\x45\xdf\xa3\1\0\0\0\0\0\0\x1f\x42\x86\x81\1\x42\xf7\x81\1\x42\xf2\x81\4\x42\xf3\x81\x08\x42\x82\x84webm",
    ],
    InputKind.AUDIO: [
        b"RIFF\x24\0\0\0WAVEfmt " + bytes(200),
        b"ID3\3\0\0\0\0\0\0" + bytes(200),
        b"fLaC\0\0\0\x22" + bytes(200),
        *(b"\0\0\0\x18ftyp" + brand + bytes(200) for brand in (b"M4A ", b"M4B ", b"F4A ")),
        b"RF64\xff\xff\xff\xffWAVEds64" + bytes(200),
        b"#!AMR\n" + bytes(200),
        b"caff\0\1\0\0desc" + bytes(200),
        b"OggS\0\2" + bytes(22) + b"\1\x1eOpusHead" + bytes(200),
    ],
    InputKind.MODEL_3D: [
        b"glTF\2\0\0\0" + bytes(100),
        gzip.compress(b"NGSP\2\0\0\0" + bytes(60)),
        b"PK\3\4" + bytes(26) + b"scene/model.usdc" + bytes(60),
        json.dumps({"scenes": [], "buffers": ["x" * HEAD_BYTES], "asset": {"version": "2.0"}}).encode(),
        OBJ,
        OBJ * (HEAD_BYTES // len(OBJ) + 3),
        b"Kaydara FBX Binary  \0\x1a\0" + bytes(100),
        bytes(80) + struct.pack("<I", 2) + bytes(100),
        b"solid cube\n facet normal 0 0 1\n  outer loop\n",
        b"ply\nformat ascii 1.0\nelement vertex 1\n",
        b"ply\nformat binary_little_endian 1.0\nelement vertex 1\nend_header\n" + bytes(12),
    ],
    InputKind.LATENT: [safetensors()],
    InputKind.TEXT: [
        b"a,b\n1,2\n",
        b'{"asset": 1}',
        "ümlaut".encode() * HEAD_BYTES,
        "a text".encode("utf-16"),
        b"BMW is no bitmap, ID3 no song",
        b"# notes\nv is for victory\n",
        b"vt 1 2\nv x y z\n",
    ],
    None: [
        b"",
        b"SQLite format 3\0" + bytes(100),
        b"PK\3\4" + bytes(60),
        gzip.compress(bytes(60)),
        b"\x1f\x8b broken",
        (b"\x47" + bytes(186)) * 4,
        b"\x7fELF\2\1\1" + bytes(100),
        b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n\0",
        b"\x30\x82\x04\xbd\2\1\0\x30\x0d" + bytes(range(256)),
        struct.pack("<Q", 20) + b'{"a": "no tensors"} ' + bytes(9),
    ],
}


@pytest.mark.parametrize("kind", EXAMPLES)
def test_a_content_tells_its_kind(kind: InputKind | None, tmp_path: Path) -> None:
    for number, content in enumerate(EXAMPLES[kind]):
        (tmp_path / "a.png").write_bytes(content)
        assert kind_of(tmp_path / "a.png") is kind, (number, content[:40])


def test_a_hostile_text_is_looked_at_quickly(tmp_path: Path) -> None:
    for content in (b"P1 " + b"# " * 30_000, b"v" + b" 1" * 30_000 + b"x", b"ply\n" + b"comment \n" * 7000):
        (tmp_path / "a").write_bytes(content)
        assert kind_of(tmp_path / "a") is InputKind.TEXT


KEYS = [
    *("id_rsa", "id_ed25519", "ID_ECDSA.pub", "id_rsa.bak", "server.pem", "tls.KEY", "a.p12", "me.ppk"),
    *("_netrc", "credentials", "credentials.json", "secrets.yml", "api_key.txt", "known_hosts", "shadow"),
    *("authorized_keys2", "client_secret_1.apps.json", "service-account.json", "wallet.dat", "kubeconfig"),
    "ssh_host_rsa_key",
]


@pytest.mark.parametrize("name", KEYS)
def test_names_of_keys(name: str) -> None:
    assert is_key_name(name)


@pytest.mark.parametrize(
    "name",
    ["id_card.png", "key.png", "monkey", "secret_garden.jpg", "a.keyframes", "token.png", "passwd.webp"],
)
def test_names_of_pictures(name: str) -> None:
    assert not is_key_name(name)


def test_contents_of_keys() -> None:
    for kind in ("OPENSSH ", "RSA ", "EC ", "ENCRYPTED ", ""):
        assert holds_private_key(f"note\n-----BEGIN {kind}PRIVATE KEY-----\n".encode())
    assert holds_private_key(b"-----BEGIN PGP PRIVATE KEY BLOCK-----")
    assert holds_private_key(b"PuTTY-User-Key-File-3: ssh-ed25519")
    assert not holds_private_key(b"-----BEGIN CERTIFICATE-----")


@pytest.mark.parametrize(
    ("path", "roots", "is_refused"),
    [
        ("/home/me/a.png", [], False),
        ("/home/me/.ssh/a.png", [], True),
        ("/home/me/.env", [], True),
        ("/home/.me/a.png", ["/home/.me"], False),
        ("/home/.me/.git/a.png", ["/home/.me"], True),
        ("/home/.me/.in/a.png", ["/home/.me", "/home/.me/.in"], False),
        ("/etc/cron.d", [], True),
        ("/etc/pictures/a.png", ["/etc/pictures"], False),
        ("/dev/shm/a.png", [], False),
        ("/proc/self/environ", [], True),
        ("/Users/me/Library/LaunchAgents", [], True),
    ],
)
def test_places(path: str, roots: list[str], is_refused: bool) -> None:
    assert (reason_not_to_use(Path(path), map(Path, roots)) is not None) is is_refused
