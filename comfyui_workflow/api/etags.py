"""Conditional GET requests: `ETag`, `If-None-Match` and 304."""

from flask import Response, request


def with_etag(response: Response) -> Response:
    """Adds an ETag of the content to a JSON response, or turns it into a 304 if the client has that version.

    Applies to GET and HEAD with status 200. The browser stores the response and revalidates it each time.
    Errors are not changed; neither are files, which have their own ETag.
    """
    is_json = response.is_json and not response.direct_passthrough
    if request.method not in ("GET", "HEAD") or response.status_code != 200 or not is_json:
        return response
    response.headers["Cache-Control"] = "private, no-cache"
    response.add_etag()
    etag, _ = response.get_etag()
    if etag is not None and request.if_none_match.contains_weak(etag):
        response.status_code = 304
    return response
