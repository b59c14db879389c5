"""Whatever bytes are handed in as a picture: what is inside, or a refusal in words."""

import json

from hypothesis import example, given
from hypothesis import strategies as st

from comfyui_workflow.errors import InvalidGraph
from comfyui_workflow.workflows.input_formats import read_workflow_file
from tests.fuzz.effort import effort
from tests.fuzz.values import objects, texts, values
from tests.workflows import pictures

GRAPH = '{"1": {"class_type": "X", "inputs": {}}}'
WHOLE = [
    pictures.png(pictures.text("prompt", GRAPH), pictures.compressed("workflow", b'{"nodes": []}')),
    pictures.png(pictures.international("prompt", GRAPH.encode(), is_compressed=True)),
    pictures.with_exif("WEBP", f"prompt:{GRAPH}", 'workflow:{"nodes": []}'),
    pictures.with_exif("JPEG", f"prompt:{GRAPH}"),
]
names = st.sampled_from(
    [b"prompt", b"workflow", b"Prompt", b"", b"exif", b"Raw profile type exif"]
) | st.binary(max_size=90)
contents = st.one_of(
    st.binary(max_size=60), st.just(GRAPH.encode()), (objects | values).map(json.dumps).map(str.encode)
)
chunks = st.one_of(
    st.builds(
        lambda kind, name, between, content: pictures.chunk(kind, name + between + content),
        st.sampled_from([b"tEXt", b"zTXt", b"iTXt", b"eXIf"]),
        names,
        st.sampled_from([b"\0", b"\0\0", b"\0\1", b"\0\0\0\0\0", b"\0\1\0\0\0"]),
        contents,
    ),
    st.builds(lambda content: pictures.compressed("prompt", content), contents),
    st.builds(
        pictures.chunk, st.sampled_from([b"eXIf", b"acTL", b"fcTL", b"iCCP", b"tRNS", b"pHYs"]), contents
    ),
)


@st.composite
def changed(draw: st.DrawFn) -> bytes:
    """A whole picture with some bytes of it changed, taken out or put in."""
    content = bytearray(draw(st.sampled_from(WHOLE)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(content) - 1))
        end = at + draw(st.integers(0, 8))
        content[at:end] = draw(st.binary(max_size=8))
    return bytes(content)


@effort(300)
@given(
    content=changed()
    | st.lists(chunks, max_size=4).map(lambda found: pictures.png(*found))
    | st.tuples(st.sampled_from([b"RIFF", b"\xff\xd8\xff", pictures.SIGNATURE]), st.binary()).map(b"".join)
    | texts.map(lambda text: pictures.with_exif("WEBP", f"prompt:{text.encode(errors='replace').decode()}"))
)
@example(content=pictures.png(width=2**31 - 1, height=2**31 - 1))
def test_a_picture_has_a_workflow_or_is_refused(content: bytes) -> None:
    try:
        given = read_workflow_file(content)
    except InvalidGraph as error:
        assert str(error)
    except (ValueError, RecursionError):
        assert not content.startswith((b"RIFF", b"\xff\xd8\xff", pictures.SIGNATURE))
    else:
        assert given.graph or given.editor_file
