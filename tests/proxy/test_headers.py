"""Tests of the headers that reach the instance."""

import pytest

from comfyui_workflow.proxy.headers import forwarded_headers


@pytest.mark.parametrize(("site", "arrives"), [("cross-site", None), ("same-origin", "same-origin")])
def test_a_newer_comfyui_does_not_learn_that_an_allowed_request_is_cross_site(
    site: str, arrives: str | None
) -> None:
    """It would answer 403 to a link of the start page that was opened at another name of this machine."""
    sent = forwarded_headers([(b"Sec-Fetch-Site", site.encode()), (b"Accept", b"text/html")])
    assert (sent.get("Sec-Fetch-Site"), sent["Accept"]) == (arrives, "text/html")
