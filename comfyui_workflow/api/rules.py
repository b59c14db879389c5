"""URL rules that are created quickly."""

from collections.abc import Callable
from typing import Any

from werkzeug.routing import Rule

UrlBuilder = Callable[..., tuple[str, str]]


class MatchingRule(Rule):
    """URL rule that is only matched, or rarely used to build a URL. werkzeug generates two functions that
    build URLs for each rule, which takes most of the time of creating the app; here they are generated when a
    URL is built."""

    def _compile_builder(self, append_unknown: bool = True) -> UrlBuilder:
        generate = super()._compile_builder
        generated: list[UrlBuilder] = []

        def build(rule: Rule, **values: Any) -> tuple[str, str]:
            if not generated:
                generated.append(generate(append_unknown))
            return generated[0](rule, **values)

        return build
