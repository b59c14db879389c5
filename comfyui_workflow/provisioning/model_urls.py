"""URLs of models in requests: checked, and separated from their secrets."""

from comfyui_workflow.errors import InvalidRequest
from comfyui_workflow.runs.credentials import without_secrets
from comfyui_workflow.workflows.model_sources import LONGEST_URL, direct_url, is_url, key_of_url


def plain_url(given: str) -> str:
    """Returns the complete URL of the file. Raises: InvalidRequest."""
    scheme, mark, rest = given.partition("://")
    url = direct_url(f"{scheme.lower()}{mark}{rest}".partition("#")[0])
    if not is_url(url):
        raise InvalidRequest(
            "the instance downloads only from URLs with https or http, without spaces and of at most "
            f"{LONGEST_URL} characters"
        )
    return url


def recorded_url(url: str) -> str:
    """Returns the URL without its secrets. What is left out may tell two models apart, so a hash of the whole
    URL is added as its fragment."""
    visible = without_secrets(url)
    return url if visible == url else f"{visible}#{key_of_url(url)[:10]}"
