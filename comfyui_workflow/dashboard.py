"""GET /: the page that shows the runs. It uses the public API only."""

from pathlib import Path

from flask import Blueprint, Response, current_app, make_response, render_template

PATH = "/"
_OWN = "script-src 'self'; style-src 'self'; img-src 'self' blob:; media-src 'self'; connect-src 'self'"
_POLICY = (
    f"default-src 'none'; {_OWN}; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)


def create_blueprint() -> Blueprint:
    routes = Blueprint("dashboard", __name__)

    @routes.get(PATH)
    def page() -> Response:
        modules = modules_of(Path(current_app.static_folder or "static"))
        response = make_response(render_template("index.html", modules=modules))
        response.headers["Content-Security-Policy"] = _POLICY
        return response

    return routes


def modules_of(directory: Path) -> list[str]:
    """Of the page, so that the browser asks for all of them at once and not for one after the other."""
    return sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*.js"))
