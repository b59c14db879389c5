"""Check of the ids that clients choose for their prompts."""

import uuid


def is_canonical(value: object) -> bool:
    """True for the text of a UUID in lower case with hyphens. Newer versions refuse every other id."""
    try:
        return isinstance(value, str) and str(uuid.UUID(value)) == value
    except ValueError:
        return False
