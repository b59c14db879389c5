"""Documents of the client match the schemas of the server, in both directions."""

from typing import Any

import msgspec
import pytest
from pydantic import BaseModel

from comfyui_workflow.api.native import schemas
from comfyui_workflow.client import batch_documents, documents, instance_documents
from comfyui_workflow.client.instances import InstanceFields
from comfyui_workflow.client.orders import BatchOrder, Order

Json = dict[str, Any]

PAIRS: list[tuple[type[documents.Document], type[BaseModel]]] = [
    (documents.StartedDocument, schemas.RunStarted),
    (documents.NodeDocument, schemas.Node),
    (documents.OutputDocument, schemas.OutputFile),
    (documents.LivePreviewDocument, schemas.LivePreview),
    (documents.TransferDocument, schemas.Transfer),
    (documents.ProgressDocument, schemas.RunProgress),
    (documents.SummaryDocument, schemas.RunLine),
    (documents.PartDocument, schemas.RunPart),
    (documents.FindingDocument, schemas.Finding),
    (documents.MissingModelDocument, schemas.MissingModel),
    (documents.MissingPackDocument, schemas.MissingPack),
    (documents.InspectionDocument, schemas.ValidationResponse),
    (documents.CustomWorkflowDocument, schemas.CustomWorkflow),
    (batch_documents.BatchStartedDocument, schemas.BatchStarted),
    (batch_documents.BatchFailureDocument, schemas.BatchFailure),
    (batch_documents.BatchNoticeDocument, schemas.BatchNotice),
    (batch_documents.BatchProgressDocument, schemas.BatchProgress),
    (batch_documents.BatchRunDocument, schemas.BatchRunLine),
    (batch_documents.BatchSummaryDocument, schemas.BatchSummaryResponse),
    (batch_documents.BatchOutputDocument, schemas.BatchOutput),
    (instance_documents.DeviceDocument, schemas.Device),
    (instance_documents.PromptsDocument, schemas.InstancePrompts),
    (instance_documents.HostKeyDocument, schemas.HostKeys),
    (instance_documents.StateDocument, schemas.InstanceStatus),
    (instance_documents.LocalPortDocument, schemas.LocalPort),
    (instance_documents.InstanceDocument, schemas.InstanceEntry),
    (instance_documents.InstanceListDocument, schemas.InstancesResponse),
    (instance_documents.RemovalDocument, schemas.InstanceRemoved),
    (instance_documents.QueuedPromptDocument, schemas.QueuedPrompt),
    (instance_documents.QueueDocument, schemas.QueueResponse),
    (instance_documents.InterruptionDocument, schemas.Interrupted),
    (instance_documents.PreparationDocument, schemas.InstancePreparation),
    (instance_documents.PlanItemDocument, schemas.PlanItem),
    (instance_documents.PlanDocument, schemas.ProvisionPlan),
    (instance_documents.ProvisionLineDocument, schemas.ProvisionLine),
    (instance_documents.ProvisionDocument, schemas.ProvisionDocument),
    (instance_documents.ProvisionStateDocument, schemas.ProvisionStarted),
    (instance_documents.SpentDocument, schemas.Spent),
    (instance_documents.InstanceCostsDocument, schemas.InstanceCosts),
    (instance_documents.CostsDocument, schemas.CostsResponse),
]
OWN = {"raw"}
"""The whole response, added by the client."""
BESIDE_THE_ENTRY = {"InstanceDocument": {"notices", "unfinished_runs"}}
"""Next to the entry in the response to a change (`InstanceChanged`); the client adds them to the entry."""


def test_no_document_of_the_client_is_left_out() -> None:
    modules = (documents, batch_documents, instance_documents)
    found = {
        each
        for module in modules
        for each in vars(module).values()
        if isinstance(each, type) and issubclass(each, documents.Document)
    }
    assert found - {documents.Document} == {document for document, _ in PAIRS}


@pytest.mark.parametrize(("document", "schema"), PAIRS)
def test_the_client_reads_what_the_server_says(
    document: type[documents.Document], schema: type[BaseModel]
) -> None:
    definitions = msgspec.json.schema(document)["$defs"]
    read, said = {**definitions[document.__name__], "$defs": definitions}, schema.model_json_schema()
    wanted = read["properties"].keys() - OWN - BESIDE_THE_ENTRY.get(document.__name__, set())
    assert wanted <= said["properties"].keys()
    for name in wanted:
        taken, given = (kinds(each["properties"][name], each) for each in (read, said))
        assert not given - taken - free(taken), f"{name}: the server says {given}, the client takes {taken}"
    assert set(read.get("required", ())) - OWN <= set(said["required"])


@pytest.mark.parametrize(
    ("sent", "schema"),
    [(Order, schemas.RunOrder), (BatchOrder, schemas.BatchBody), (InstanceFields, schemas.InstanceBody)],
)
def test_the_client_sends_what_the_server_takes(sent: Any, schema: type[BaseModel]) -> None:
    assert sent.__annotations__.keys() <= schema.model_fields.keys()


def kinds(field: Json, owner: Json) -> set[str]:
    """Returns the JSON types of a field, the values of an enumeration, or the types of the items of a
    list."""
    if "$ref" in field:
        return kinds(owner["$defs"][field["$ref"].rpartition("/")[2]], owner)
    if "anyOf" in field:
        return set[str]().union(*(kinds(each, owner) for each in field["anyOf"]))
    if "enum" in field:
        return {f"word {each}" for each in field["enum"]}
    if field.get("type") == "array":
        return {f"{kind} in a list" for kind in kinds(field["items"], owner)}
    return {field["type"]} if "type" in field else set()


def free(taken: set[str]) -> set[str]:
    """Returns the other types that a client with these types accepts."""
    wider = set[str]()
    if "number" in taken:
        wider.add("integer")
    if "string" in taken:
        wider |= {f"word {each}" for each in WORDS}
    return wider


WORDS = (
    "upload",
    "download",
    "unknown",
    "connecting",
    "ready",
    "unreachable",
    "continue",
    "stop",
    "token",
    "password",
    "json",
    "python",
    "javascript",
    "typescript",
    "running",
    "done",
    "completed",
    "failed",
    "cancelled",
    "none",
    "install",
    "update",
    "refused",
    "apt",
    "pip",
    "custom_node",
    "model",
)
"""Enumerations that the client passes on as text."""
