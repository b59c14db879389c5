"""What the libraries of the storages say in errors, without the signatures of URLs."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from comfyui_workflow.errors import StorageError
from comfyui_workflow.storage import azure, huggingface, s3

TEXT = "error sending request for url (https://h.example/key?X-Amz-Signature=hush&b=hush): refused\nby h"
SHOWN = "error sending request for url (https://h.example/key?...): refused by h"
Telling = Callable[[str], AbstractContextManager[None]]


@pytest.mark.parametrize("telling", [huggingface._telling, azure._telling, s3._telling])
@pytest.mark.parametrize("kind", [OSError, ValueError])
def test_no_error_of_a_library_has_a_signature(telling: Telling, kind: type[Exception]) -> None:
    with pytest.raises(StorageError) as caught, telling("https://h.example/key"):
        raise kind(TEXT)
    assert str(caught.value) == f"https://h.example/key: {SHOWN}"
