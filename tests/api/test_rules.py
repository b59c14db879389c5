"""URL rules that generate the code for URLs when a URL is built."""

from flask import url_for

from tests.api.conftest import Api


def test_urls_are_built_as_by_flask(api: Api) -> None:
    with api.app.test_request_context():
        assert url_for("static", filename="icon.svg") == "/static/icon.svg"
        assert url_for("static", filename="a b", page=2) == "/static/a%20b?page=2"
        assert url_for("static", filename="icon.svg") == "/static/icon.svg"


def test_only_rules_whose_url_is_built_generate_code_for_it(api: Api) -> None:
    assert {type(rule).__name__ for rule in api.app.url_map.iter_rules()} == {"MatchingRule"}
