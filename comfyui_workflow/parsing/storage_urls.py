"""Recognizes URLs among the texts that name files. Imports nothing, for fast commands."""

import re


def is_storage_url(text: str) -> bool:
    """True for a text that names a file in a storage or on a web server, and no local file."""
    return re.match(r"(?i)(https?|s3|hf)://", text) is not None
