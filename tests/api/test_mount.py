"""Each API formats the errors of the paths below its own prefix only."""

import pytest
from flask import Blueprint, Flask, Response, jsonify

from comfyui_workflow.api.mount import Api, mount


def api(prefix: str) -> Api:
    return Api(
        prefix=prefix,
        create_blueprint=lambda _: Blueprint(prefix.replace("/", "_"), __name__),
        error_response=lambda _: _said_by(prefix),
        http_error_response=lambda _: _said_by(prefix),
    )


def _said_by(prefix: str) -> Response:
    return jsonify(owner=prefix)


@pytest.mark.parametrize("order", [("/a", "/a/b"), ("/a/b", "/a")])
@pytest.mark.parametrize(
    ("path", "owner"),
    [("/a", "/a"), ("/a/c", "/a"), ("/a/b", "/a/b"), ("/a/b/c", "/a/b"), ("/a/bc", "/a"), ("/a/c/b", "/a")],
)
def test_the_longest_prefix_owns_a_path(path: str, owner: str, order: tuple[str, str]) -> None:
    app = Flask("mounted")
    mount(app, None, tuple(map(api, order)))  # type: ignore[arg-type]
    assert app.test_client().get(path).json == {"owner": owner}
