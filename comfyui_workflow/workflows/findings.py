"""Findings: errors and warnings about a workflow, with node, input and similar names."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Severity(StrEnum):
    ERROR = "error"
    """ComfyUI refuses the workflow, or stops it, for this reason."""
    WARNING = "warning"
    """The workflow runs, but perhaps not as intended; or only ComfyUI itself can tell if it runs."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One error or warning.

    `code` is ComfyUI's own error type if there is one (`value_not_in_list`). `message` does not name the
    node: the other fields do, and `str()` adds it.
    """

    code: str
    message: str
    severity: Severity = Severity.ERROR
    node_id: str | None = None
    class_type: str | None = None
    title: str | None = None
    input_name: str | None = None
    nearest: tuple[str, ...] = ()
    """The names on the instance that are most similar to the name in the workflow."""

    def __str__(self) -> str:
        return f"{self._location()}: {self.message}" if self.node_id is not None else self.message

    def _location(self) -> str:
        titled = f' "{self.title}"' if self.title and self.title != self.class_type else ""
        return f"node {self.node_id} ({self.class_type}{titled})"

    def document(self) -> dict[str, Any]:
        """Returns the finding as a JSON object."""
        return {
            "severity": self.severity.value,
            "code": self.code,
            "message": str(self),
            "node_id": self.node_id,
            "class_type": self.class_type,
            "title": self.title,
            "input": self.input_name,
            "nearest": list(self.nearest),
        }


CODES_OF_MISSING_PARTS = frozenset(
    ("missing_node_type", "value_not_in_list", "input_file_missing", "custom_validation_failed")
)
"""Codes of problems that may end when a model, a node class or a file is added to the instance."""


def errors(findings: Iterable[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.severity is Severity.ERROR]


def warnings(findings: Iterable[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.severity is Severity.WARNING]


def sentence(findings: Iterable[Finding]) -> str:
    """Joins the findings into one sentence."""
    return "; ".join(str(finding) for finding in findings)
