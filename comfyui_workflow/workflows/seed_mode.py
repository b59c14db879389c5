"""Treatment of seeds. It has its own module, so the command line can offer the choice without importing the
data model."""

from enum import StrEnum


class SeedMode(StrEnum):
    """Treatment of the seeds of a workflow when it is queued."""

    SAVED = "saved"
    """The seeds of the workflow are kept."""
    CONTROL = "control"
    """The seeds change as in the editor: each node's own "control after generate" decides."""
    RANDOMIZE = "randomize"
    """Every seed is replaced by a random one."""
