"""GET /: the page that shows the runs. It uses the public API only. With an API token, a login before it."""

import time
from dataclasses import dataclass
from pathlib import Path

from flask import (
    Blueprint,
    Flask,
    Response,
    abort,
    current_app,
    make_response,
    redirect,
    render_template,
    request,
)
from werkzeug.exceptions import TooManyRequests

from comfyui_workflow.access.login_cookie import COOKIE, LASTS_S, cookie_value, is_token
from comfyui_workflow.api.auth import is_authorized, is_own_page, refuse_guesses
from comfyui_workflow.api.error_responses import keep_headers
from comfyui_workflow.api.guess_limit import note_wrong
from comfyui_workflow.api.operations import Operation, RequestBody, Section, register
from comfyui_workflow.settings import Settings

PATH = "/"
LOGIN_PATH = "/login"
LOGOUT_PATH = "/logout"
OPEN_PATHS = frozenset({PATH, LOGIN_PATH, LOGOUT_PATH})
"""They look for the token themselves."""
_OWN = "script-src 'self'; style-src 'self'; img-src 'self' blob:; media-src 'self'; connect-src 'self'"
_POLICY = (
    f"default-src 'none'; {_OWN}; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
_LOGIN_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
_OF_OTHER_PAGES = frozenset({"login.js", "docs.js"})


class LoginForm(RequestBody):
    token: str


@dataclass(frozen=True, kw_only=True)
class PageViews:
    settings: Settings

    def page(self) -> Response:
        if not is_authorized(self.settings):
            try:
                refuse_guesses(self.settings)
            except TooManyRequests as error:
                return _slow_down(error)
            return _login_page()
        modules = modules_of(Path(current_app.static_folder or "static"))
        return _page("index.html", _POLICY, modules=modules, has_login=self._token is not None)

    def ask(self) -> Response:
        return _to_the_page()

    def login(self) -> Response:
        if not is_own_page():
            abort(403, "Only the page of this server itself may log in")
        if self._token is None:
            return _to_the_page()
        given = request.form.get("token", "").strip()
        if not is_token(given, self._token):
            try:
                note_wrong([given] if given else [])
            except TooManyRequests as error:
                return _slow_down(error)
            return _login_page("This is not the token of this server.", 401)
        response = _to_the_page()
        _keep(response, cookie_value(self._token, int(time.time())), LASTS_S)
        return response

    def logout(self) -> Response:
        if not is_own_page():
            abort(403, "Only the page of this server itself may log out")
        response = _to_the_page()
        _keep(response, "", 0)
        return response

    @property
    def _token(self) -> str | None:
        token = self.settings.api_token
        return token.get_secret_value() if token else None


def create_blueprint(settings: Settings) -> Blueprint:
    routes = Blueprint("dashboard", __name__)
    register(routes, OPERATIONS, PageViews(settings=settings))
    return routes


def root_directory() -> Path:
    """The directory of `static/` and `templates/`: this package in an installed wheel, which they travel in;
    the top of the repository in a checkout."""
    package = Path(__file__).parent
    return package if (package / "templates").is_dir() else package.parents[1]


def modules_of(directory: Path) -> list[str]:
    """Of the page, so that the browser asks for all of them at once and not for one after the other."""
    found = (path.relative_to(directory).as_posix() for path in directory.rglob("*.js"))
    return sorted(name for name in found if name not in _OF_OTHER_PAGES)


def _login_page(trouble: str = "", status: int = 200) -> Response:
    """Who follows a link of another site comes without a cookie, which is for this site alone: the page loads
    itself again, then as one of ours."""
    response = _page("login.html", _LOGIN_POLICY, trouble=trouble)
    response.status_code = status
    if request.headers.get("Sec-Fetch-Site") == "cross-site":
        response.headers["Refresh"] = f"0; url={PATH}"
    return response


def _slow_down(error: TooManyRequests) -> Response:
    response = _login_page(error.description or "", 429)
    keep_headers(error, response)
    return response


def _page(template: str, policy: str, **told: object) -> Response:
    response = make_response(render_template(template, **told))
    response.headers["Content-Security-Policy"] = policy
    response.headers["Cache-Control"] = "no-store"
    return response


def _to_the_page() -> Response:
    return make_response(redirect(PATH, 303))


def _keep(response: Response, value: str, for_s: int) -> None:
    """Over HTTPS never over anything else, also where something in front of us ends it."""
    is_secure = request.is_secure or request.headers.get("Origin", "").startswith("https:")
    response.set_cookie(COOKIE, value, max_age=for_s, httponly=True, samesite="Strict", secure=is_secure)


OPERATIONS = (
    Operation(
        method="GET",
        rule=PATH,
        view=PageViews.page,
        summary="The page that shows the runs, or the login",
        answer="text/html",
    ),
    Operation(
        method="GET", rule=LOGIN_PATH, view=PageViews.ask, summary="Leads to the page", status=303, answer=""
    ),
    Operation(
        method="POST",
        rule=LOGIN_PATH,
        view=PageViews.login,
        summary="Log in: a cookie that counts for a month",
        body=LoginForm,
        body_type="application/x-www-form-urlencoded",
        status=303,
        answer="",
    ),
    Operation(
        method="POST", rule=LOGOUT_PATH, view=PageViews.logout, summary="Log out", status=303, answer=""
    ),
)
STATIC = Operation(
    method="GET",
    rule="/static/<path:filename>",
    view=Flask.send_static_file,
    summary="A file of the page",
    answer="*/*",
)
"""Flask itself adds this route."""

SECTION = Section(
    tag="Page",
    description="The page in a browser: docs/page.md",
    operations=(*OPERATIONS, STATIC),
    has_etags=False,
    is_open=True,
)
