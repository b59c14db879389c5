"""GET /: the web page with the runs. It uses the public API only. If an API token is set, the login page
comes first."""

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
from comfyui_workflow.api.auth import is_authorized, is_own_page, record_failed_authorization
from comfyui_workflow.api.error_responses import keep_headers
from comfyui_workflow.api.guess_limit import record_guesses
from comfyui_workflow.api.operations import OpenRequestBody, Operation, Section, register
from comfyui_workflow.settings import Settings

PATH = "/"
LOGIN_PATH = "/login"
LOGOUT_PATH = "/logout"
OPEN_PATHS = frozenset({PATH, LOGIN_PATH, LOGOUT_PATH})
"""Paths that the authorization of requests skips: their views check the token themselves."""
_OWN_SOURCES = (
    "script-src 'self'; style-src 'self'; img-src 'self' blob:; media-src 'self'; connect-src 'self'"
)
_POLICY = (
    f"default-src 'none'; {_OWN_SOURCES}; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
_LOGIN_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
_SCRIPTS_OF_OTHER_PAGES = frozenset({"login.js", "docs.js"})


class LoginForm(OpenRequestBody):
    token: str
    """The API token of the server (`COMFYUI_WORKFLOW_API_TOKEN`)."""


@dataclass(frozen=True, kw_only=True)
class PageViews:
    settings: Settings

    def page(self) -> Response:
        if not is_authorized(self.settings):
            try:
                record_failed_authorization(self.settings)
            except TooManyRequests as error:
                return _too_many_requests(error)
            return _login_page()
        modules = modules_of(Path(current_app.static_folder or "static"))
        return _page(
            "index.html",
            _POLICY,
            modules=modules,
            has_login=self._token is not None,
            has_workflows=self.settings.workflow_dir is not None,
        )

    def redirect_to_page(self) -> Response:
        return _redirect_to_page()

    def login(self) -> Response:
        if not is_own_page():
            abort(403, "Only the page of this server itself may log in")
        if self._token is None:
            return _redirect_to_page()
        given = request.form.get("token", "").strip()
        if not is_token(given, self._token):
            try:
                record_guesses([given] if given else [])
            except TooManyRequests as error:
                return _too_many_requests(error)
            return _login_page("This is not the token of this server.", 401)
        response = _redirect_to_page()
        _set_cookie(response, cookie_value(self._token, int(time.time())), LASTS_S)
        return response

    def logout(self) -> Response:
        if not is_own_page():
            abort(403, "Only the page of this server itself may log out")
        response = _redirect_to_page()
        _set_cookie(response, "", 0)
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
    """Returns the directory of `static/` and `templates/`: this package in an installed wheel, the top
    directory in a checkout of the repository."""
    package = Path(__file__).parent
    return package if (package / "templates").is_dir() else package.parents[1]


def modules_of(directory: Path) -> list[str]:
    """Returns the JavaScript modules of the page. The page preloads them, so the browser requests all of them
    at once."""
    found = (path.relative_to(directory).as_posix() for path in directory.rglob("*.js"))
    return sorted(name for name in found if name not in _SCRIPTS_OF_OTHER_PAGES)


def _login_page(error_message: str = "", status: int = 200) -> Response:
    """Returns the login page. After a link on another site the browser does not send the `SameSite=Strict`
    cookie; then the page reloads itself, and this second request has the cookie."""
    response = _page("login.html", _LOGIN_POLICY, trouble=error_message)
    response.status_code = status
    if request.headers.get("Sec-Fetch-Site") == "cross-site":
        response.headers["Refresh"] = f"0; url={PATH}"
    return response


def _too_many_requests(error: TooManyRequests) -> Response:
    response = _login_page(error.description or "", 429)
    keep_headers(error, response)
    return response


def _page(template: str, policy: str, **values: object) -> Response:
    response = make_response(render_template(template, **values))
    response.headers["Content-Security-Policy"] = policy
    response.headers["Cache-Control"] = "no-store"
    return response


def _redirect_to_page() -> Response:
    return make_response(redirect(PATH, 303))


def _set_cookie(response: Response, value: str, max_age_s: int) -> None:
    """Sets the login cookie. It gets `Secure` if the request came over HTTPS, also if a reverse proxy
    terminates TLS (seen in `Origin`)."""
    is_secure = request.is_secure or request.headers.get("Origin", "").startswith("https:")
    response.set_cookie(COOKIE, value, max_age=max_age_s, httponly=True, samesite="Strict", secure=is_secure)


OPERATIONS = (
    Operation(
        method="GET",
        rule=PATH,
        view=PageViews.page,
        summary="Show the page with the runs, or the login page",
        answer="text/html",
    ),
    Operation(
        method="GET",
        rule=LOGIN_PATH,
        view=PageViews.redirect_to_page,
        summary="Redirect to the page",
        status=303,
        answer="",
    ),
    Operation(
        method="POST",
        rule=LOGIN_PATH,
        view=PageViews.login,
        summary="Log in",
        description="Sets a cookie that is valid for 30 days and redirects to `/`. "
        "Errors: 401 wrong token; 403 form of another site; 429 too many wrong tokens from this address.",
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
    summary="Get a file of the page",
    answer="*/*",
)
"""Flask adds this route; the operation is for the document only."""

SECTION = Section(
    tag="Page",
    description="The web page. Details: docs/page.md",
    operations=(*OPERATIONS, STATIC),
    has_etags=False,
    is_open=True,
)
