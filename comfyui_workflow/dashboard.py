"""GET /: the page that shows the runs. It uses the public API only."""

from flask import Blueprint, Response, make_response, render_template

PATH = "/"
_OWN = "script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'"
_POLICY = f"default-src 'none'; {_OWN}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


def create_blueprint() -> Blueprint:
    routes = Blueprint("dashboard", __name__)

    @routes.get(PATH)
    def page() -> Response:
        response = make_response(render_template("index.html"))
        response.headers["Content-Security-Policy"] = _POLICY
        return response

    return routes
