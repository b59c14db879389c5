"""The nearest known field of an unknown one."""

import re
import time

import pytest

from comfyui_workflow.api.run_requests import BATCH_FIELDS, RUN_FIELDS
from comfyui_workflow.errors import InvalidRequest
from comfyui_workflow.parsing.fields import nearest_field, refuse_misspelled_fields, refuse_unknown_fields

KNOWN = BATCH_FIELDS | RUN_FIELDS


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("input", "inputs"),
        ("Inputs", "inputs"),
        ("inptus", "inputs"),
        ("workflowFile", "workflow_file"),
        ("file-workflow", "workflow_file"),
        ("images", "input_images"),
        ("image_input", "input_images"),
        ("sshConnection", "ssh_connection"),
        ("ssh", "ssh_connection"),
        ("port", "comfyui_port"),
        ("outputdir", "output_dir"),
        ("api_key_comfy_org", "comfy_org_api_key"),
        ("api_key", "comfy_org_api_key"),
        ("on_eror", "on_error"),
        ("stagger", "stagger_s"),
        ("prio", "priority"),
        ("x", None),
        ("", None),
        ("ключ", None),
        ("inputs" * 20, None),
    ],
)
def test_the_nearest(written: str, meant: str | None) -> None:
    assert nearest_field(written, KNOWN) == meant


def test_the_sentence() -> None:
    with pytest.raises(InvalidRequest, match=r"^b is not a field of a cat, which has none$"):
        refuse_unknown_fields({"c": 1, "b": 2}, (), "a cat")
    with pytest.raises(InvalidRequest, match=r"^x is not a parameter of a cat; the parameters are fur, paw$"):
        refuse_unknown_fields(["x"], {"paw", "fur"}, "a cat", "parameter")
    with pytest.raises(InvalidRequest, match=re.escape("a\ufffd\ufffdb[31m is not a field of a cat")):
        refuse_unknown_fields(["a\x1b\nb[31m"], {"paw"}, "a cat")
    refuse_unknown_fields({"paw": 1}, {"paw", "fur"}, "a cat")


def test_only_a_field_that_is_missing_can_be_misspelled() -> None:
    with pytest.raises(InvalidRequest, match=r"^webhookUrl is not a field of a job; the nearest is webhook$"):
        refuse_misspelled_fields({"webhookUrl": 1}, ("webhook", "input"), "a job")
    refuse_misspelled_fields({"webhookUrl": 1, "webhook": 2, "prompt": 3}, ("webhook", "input"), "a job")


def test_many_unknown_fields_take_no_time() -> None:
    many = {f"webh{number:060}": 1 for number in range(100_000)}
    started_s = time.process_time()
    refuse_misspelled_fields(many, ("webhook", "input"), "a job")
    assert time.process_time() - started_s < 1
