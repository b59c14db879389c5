"""Answers that need not be sent again: who has one already is told that it is still true."""

from flask import Response, request


def revalidated(response: Response) -> Response:
    """For every answer on its way out. One in JSON to a GET gets an ETag of its content, and becomes a 304
    for who names it in `If-None-Match`; a browser keeps it, and asks each time. Errors stay as they are, and
    so do files, which have their own."""
    is_json = response.is_json and not response.direct_passthrough
    if request.method not in ("GET", "HEAD") or response.status_code != 200 or not is_json:
        return response
    response.headers["Cache-Control"] = "private, no-cache"
    response.add_etag()
    etag, _ = response.get_etag()
    if etag is not None and request.if_none_match.contains_weak(etag):
        response.status_code = 304
    return response
