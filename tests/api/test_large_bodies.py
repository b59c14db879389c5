"""A large body is in memory at most twice: as bytes and as its value, then as its value and its content."""

import base64
import json
import tracemalloc
from typing import Any

import pytest

from comfyui_workflow.api.request import idempotency_key, json_body
from comfyui_workflow.parsing.base64_text import decoded_base64
from tests.api.conftest import Api

CONTENT = bytes(range(256)) * 40_000
HEADERS = {"Idempotency-Key": "k"}


def test_neither_the_key_nor_the_value_costs_another_copy(api: Api) -> None:
    image = base64.b64encode(CONTENT).decode()
    sent = json.dumps({"input": {"image": f"data:image/png;base64,{image}", "text": "für 😀"}}).encode()
    with api.app.test_request_context(
        method="POST", data=sent, headers=HEADERS, content_type="application/json"
    ):
        tracemalloc.start()
        try:
            key, body = idempotency_key(), json_body()
            assert json_body() is body
            decoded = decoded_base64(body["input"]["image"])
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert (len(key or ""), decoded == CONTENT, body["input"]["text"]) == (16, True, "für 😀")
    assert peak_bytes < 2.1 * len(sent)


@pytest.mark.parametrize("body", [{"a": 1}, {"a": "x" * 2_000_000}])
def test_the_key_is_that_of_earlier_releases(api: Api, body: Any) -> None:
    from hashlib import sha256  # noqa: PLC0415 - beside what it says

    sent = json.dumps(body).encode()
    with api.app.test_request_context(method="POST", data=sent, headers=HEADERS):
        assert idempotency_key(" x") == sha256(b"k x\0" + sent).hexdigest()[:16]
