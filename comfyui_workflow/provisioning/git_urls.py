"""URLs of git repositories as people copy them from a browser, with the branch, tag or commit that they name.

    https://github.com/owner/repo               the newest commit
    https://github.com/owner/repo.git@v1.2      a branch, a tag or a commit after the repository
    .../tree/<ref>                              GitHub: also /commit/, /commits/, /releases/tag/
    .../-/tree/<ref>                            GitLab: also /-/commit/, /-/commits/, /-/tags/
    .../src/branch/<ref>                        Gitea and Forgejo: also /src/tag/, /src/commit/
    .../src/<ref>                               Bitbucket

The name of a branch may contain slashes, and the path of a directory may follow it. Nothing in the URL tells
where one ends, so several refs are returned, and the first that exists counts.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from comfyui_workflow.errors import InvalidRequest
from comfyui_workflow.parsing.untrusted import shown

LONGEST_REF = 200
_NAME = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9._-]{0,99}")
_REF = re.compile(rf"\w[^\x00-\x20\x7f~^:?*\[\\]{{0,{LONGEST_REF - 1}}}")
"""A ref begins with no minus sign, so git never takes it for an option."""
_PAGES = ("tree", "commit", "commits", "tags", "releases", "src")
_HOSTS_WITH_TWO_PARTS = ("github.com", "bitbucket.org", "codeberg.org")
_GITHUB = "github.com"


@dataclass(frozen=True, kw_only=True)
class GitSource:
    url: str
    """URL to clone, without anything that follows the repository."""
    repository: str
    """`owner/repo` at GitHub; with the host before it anywhere else."""
    refs: tuple[str, ...] = ()
    """Refs to try in this order. Empty: the newest commit of the default branch."""

    @property
    def name(self) -> str:
        return self.repository.rpartition("/")[2]


def read_git_url(given: str, where: str) -> GitSource:
    """`where` begins the error messages, which do not contain a password of the URL. Raises:
    InvalidRequest."""
    try:
        parts = urlsplit(given.removeprefix("git+"))
        host = parts.hostname or ""
    except ValueError as error:
        raise InvalidRequest(f"{where}: the URL is not valid") from error
    if parts.scheme not in ("https", "http") or not host:
        raise InvalidRequest(f"{where}: the URL of a repository must begin with https://")
    if parts.username is not None:
        raise InvalidRequest(f"{where}: its URL contains a password or a token; leave it out")
    path, mark, ref = parts.path.strip("/").partition("@")
    segments = [unquote(each) for each in path.split("/")]
    repository, rest = _split(segments, host)
    if mark and rest:
        raise InvalidRequest(f"{where}: the URL names two versions")
    refs = (ref,) if mark else tuple(_refs_of_page(rest, where))
    for each in refs:
        check_ref(each, where)
    has_owner = len(repository) == 2 or host not in _HOSTS_WITH_TWO_PARTS
    if not has_owner or not all(_NAME.fullmatch(each) and each.strip(".") for each in repository):
        raise InvalidRequest(f"{where}: {shown(path)!r} is not the path of a repository")
    named = "/".join([*repository[:-1], repository[-1].removesuffix(".git")])
    return GitSource(
        url=f"{parts.scheme}://{parts.netloc}/{'/'.join(repository)}",
        repository=named if host == _GITHUB else f"{parts.netloc}/{named}",
        refs=refs,
    )


def check_ref(ref: str, where: str) -> None:
    """Checks the name of a branch or tag, or a commit, as `git check-ref-format` does. Raises:
    InvalidRequest."""
    has_bad_part = any(part in ref for part in ("..", "@{", "//")) or ref.endswith(("/", ".", ".lock"))
    if has_bad_part or not _REF.fullmatch(ref):
        raise InvalidRequest(f"{where}: {shown(ref)!r} is not the name of a branch, a tag or a commit")


def _split(segments: list[str], host: str) -> tuple[list[str], list[str]]:
    """Returns the path of the repository, and what follows it."""
    if "-" in segments:  # GitLab: groups may be nested
        at = segments.index("-")
        return segments[:at], segments[at + 1 :]
    ends = [number + 1 for number, each in enumerate(segments) if each.endswith(".git")]
    pages = [number for number, each in enumerate(segments) if number >= 2 and each in _PAGES]
    at = 2 if host in _HOSTS_WITH_TWO_PARTS else [*ends[:1], *pages, len(segments)][0]
    return segments[:at], segments[at:]


def _refs_of_page(rest: Sequence[str], where: str) -> list[str]:
    """Returns the refs that a page of a repository may mean, the longest first."""
    if not rest:
        return []
    match list(rest):
        case ["commit", commit] | ["src", "commit", commit, *_]:
            return [commit]
        case ["releases", "tag", *tag] | ["releases", *tag] | ["tags", *tag] | ["src", "tag", *tag] if tag:
            return ["/".join(tag)]
        case ["src", "branch", *words] | ["tree" | "commits" | "src", *words] if words:
            return ["/".join(words[:count]) for count in range(len(words), 0, -1)]
    raise InvalidRequest(
        f"{where}: this page of a repository names no version: {shown('/'.join(rest))}. "
        "Give the URL of the repository, or of a branch, a tag or a commit in it"
    )
