"""Treatment of seeds, apart from the model: a command that offers the choice imports nothing else."""

from enum import StrEnum


class SeedMode(StrEnum):
    """Treatment of the seeds of a workflow when it is queued."""

    SAVED = "saved"
    """They stay as they are in the workflow."""
    CONTROL = "control"
    """As the editor does it: what each node's own "control after generate" says."""
    RANDOMIZE = "randomize"
    """Every one is drawn anew."""
