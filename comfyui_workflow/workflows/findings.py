"""What is wrong with a workflow, or may be: every finding says where, and what could be done."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Severity(StrEnum):
    ERROR = "error"
    """ComfyUI refuses the workflow, or ends it, because of this."""
    WARNING = "warning"
    """It runs, though perhaps not as meant; or only ComfyUI itself can say whether it does."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """`code` is a word of ComfyUI's own where it has one (`value_not_in_list`); `message` a sentence without
    the node, which the other fields name."""

    code: str
    message: str
    severity: Severity = Severity.ERROR
    node_id: str | None = None
    class_type: str | None = None
    title: str | None = None
    input_name: str | None = None
    nearest: tuple[str, ...] = ()
    """What the instance has that comes nearest to what the workflow names."""

    def __str__(self) -> str:
        return f"{self._place()}: {self.message}" if self.node_id is not None else self.message

    def _place(self) -> str:
        titled = f' "{self.title}"' if self.title and self.title != self.class_type else ""
        return f"node {self.node_id} ({self.class_type}{titled})"

    def document(self) -> dict[str, Any]:
        """For a wire: what the finding says, and where it belongs."""
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


def errors(findings: Iterable[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.severity is Severity.ERROR]


def warnings(findings: Iterable[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.severity is Severity.WARNING]


def sentence(findings: Iterable[Finding]) -> str:
    """All of them, in one sentence."""
    return "; ".join(str(finding) for finding in findings)
