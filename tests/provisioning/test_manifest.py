"""Manifests as text: what is read, and what is refused with which sentence."""

import json
import re

import pytest

from comfyui_workflow.errors import InvalidRequest
from comfyui_workflow.provisioning.git_urls import read_git_url
from comfyui_workflow.provisioning.manifest import LARGEST_BYTES, MOST_ENTRIES, read_manifest

OF_COMFYUI_API = """
apt:
  - package1
  - package2
pip:
  - package3
custom_nodes:
  - node-name-from-comfy-registry
  - https://github.com/username/repo
models:
  before_start:
    - url: https://example.com/model.ckpt
      local_path: /opt/ComfyUI/models/checkpoints/model1.ckpt
    - url: hf://owner/repo/dir/model.safetensors
      local_path: /opt/ComfyUI/models/checkpoints/model2.safetensors
  after_start:
    - url: https://example.com/another-model.ckpt
      local_path: /opt/ComfyUI/models/checkpoints/model3.ckpt
"""


def test_the_manifest_of_comfyui_api() -> None:
    found = read_manifest(OF_COMFYUI_API)
    assert found.apt == ("package1", "package2")
    assert [each.requirement for each in found.pip] == ["package3"]
    assert [(each.name, each.url, each.pack.registry_id) for each in found.packs] == [
        ("node-name-from-comfy-registry", None, "node-name-from-comfy-registry"),
        ("repo", "https://github.com/username/repo", None),
    ]
    assert [(each.url, each.is_before_start) for each in found.models] == [
        ("https://example.com/model.ckpt", True),
        ("https://huggingface.co/owner/repo/resolve/main/dir/model.safetensors", True),
        ("https://example.com/another-model.ckpt", False),
    ]


@pytest.mark.parametrize("given", ["", "{}", "apt:\n", "models:\n  after_start:\n", {}, "# nothing\n"])
def test_everything_is_optional(given: object) -> None:
    assert read_manifest(given) == read_manifest({})


def test_json_is_read_too() -> None:
    given = {"pip": ["numpy==2.1.0"], "custom_nodes": ["fancy@1.2.3", "owner/repo"]}
    found = read_manifest(json.dumps(given))
    assert found == read_manifest(given)
    assert [(each.name, each.refs) for each in found.packs] == [("fancy", ("v1.2.3", "1.2.3")), ("repo", ())]


FORMS = [
    ("https://github.com/u/r", "https://github.com/u/r", "u/r", ()),
    ("https://github.com/u/r.git", "https://github.com/u/r.git", "u/r", ()),
    ("https://github.com/u/r/", "https://github.com/u/r", "u/r", ()),
    ("https://github.com/u/r?tab=readme#install", "https://github.com/u/r", "u/r", ()),
    ("git+https://github.com/u/r@v1", "https://github.com/u/r", "u/r", ("v1",)),
    ("https://github.com/u/r.git@feature/x", "https://github.com/u/r.git", "u/r", ("feature/x",)),
    ("https://github.com/u/r/tree/v1.0", "https://github.com/u/r", "u/r", ("v1.0",)),
    ("https://github.com/u/r/tree/a/b/c", "https://github.com/u/r", "u/r", ("a/b/c", "a/b", "a")),
    ("https://github.com/u/r/commit/abc1234", "https://github.com/u/r", "u/r", ("abc1234",)),
    ("https://github.com/u/r/commits/main", "https://github.com/u/r", "u/r", ("main",)),
    ("https://github.com/u/r/releases/tag/v1%2B2", "https://github.com/u/r", "u/r", ("v1+2",)),
    ("https://gitlab.com/g/s/r/-/tree/main", "https://gitlab.com/g/s/r", "gitlab.com/g/s/r", ("main",)),
    ("https://gitlab.com/g/r/-/commit/abc", "https://gitlab.com/g/r", "gitlab.com/g/r", ("abc",)),
    ("https://gitlab.com/g/r/-/tags/v1", "https://gitlab.com/g/r", "gitlab.com/g/r", ("v1",)),
    ("https://codeberg.org/u/r/src/branch/x", "https://codeberg.org/u/r", "codeberg.org/u/r", ("x",)),
    ("https://codeberg.org/u/r/src/commit/abc/d", "https://codeberg.org/u/r", "codeberg.org/u/r", ("abc",)),
    ("https://bitbucket.org/u/r/src/main", "https://bitbucket.org/u/r", "bitbucket.org/u/r", ("main",)),
    ("http://10.0.0.5:80/r.git/tree/x", "http://10.0.0.5:80/r.git", "10.0.0.5:80/r", ("x",)),
]


@pytest.mark.parametrize("form", FORMS, ids=[each[0] for each in FORMS])
def test_forms_of_git_urls(form: tuple[str, str, str, tuple[str, ...]]) -> None:
    given, url, repository, refs = form
    found = read_git_url(given, "custom_nodes[0]")
    assert (found.url, found.repository, found.refs) == (url, repository, refs)


REFUSED = [
    ("a: [", "not valid YAML"),
    ("[]", "must be an object with the fields"),
    ("nodes: []", "nodes is not a field of a manifest"),
    ("apt: 3", "apt must be a list"),
    ("apt: [3]", "apt[0] must be a text"),
    ("apt: [vim-]", "is not the name of a Debian package"),
    ("apt: ['--reinstall']", "is not the name of a Debian package"),
    ("apt: ['a b']", "is not the name of a Debian package"),
    ("apt: ['../x.deb']", "is not the name of a Debian package"),
    ("pip: [1.0]", "put 1.0 between quotation marks"),
    ("pip: ['-r /etc/passwd']", "is not a requirement"),
    ("pip: ['--index-url=https://x']", "is not a requirement"),
    ("pip: ['./here']", "is not a requirement"),
    ("pip: ['x @ file:///etc']", "is not a requirement"),
    ("pip: ['x @ https://h/${HF_TOKEN}']", "variables are not supported"),
    ("pip: ['https://me:secret@h/x.whl']", "contains a secret"),
    ("pip: ['https://h/x.whl?token=secret']", "contains a secret"),
    ("pip: ['git+https://me:secret@h/u/x']", "contains a password"),
    ("pip: ['git+https://h/u/x@--upload-pack=touch']", "is not the name of a branch"),
    ('pip: ["a\\nb"]', "must be one line"),
    ("custom_nodes: [3]", "custom_nodes[0] must be a text"),
    ("custom_nodes: ['-x']", "neither an id"),
    ("custom_nodes: ['../x']", "neither an id"),
    ("custom_nodes: ['git@github.com:u/r.git']", "neither an id"),
    ("custom_nodes: ['ssh://git@github.com/u/r']", "must begin with https://"),
    ("custom_nodes: ['file:///etc']", "must begin with https://"),
    ("custom_nodes: ['https://secret@github.com/u/r']", "contains a password"),
    ("custom_nodes: ['https://github.com/u/r@--upload-pack=touch']", "is not the name of a branch"),
    ("custom_nodes: ['https://github.com/u/r/tree/--upload-pack=touch']", "is not the name of a branch"),
    ("custom_nodes: ['https://github.com/u/r/tree/a%20b']", "is not the name of a branch"),
    ("custom_nodes: ['https://github.com/u/r/tree/a..b']", "is not the name of a branch"),
    ("custom_nodes: ['https://github.com/u/r/issues']", "names no version"),
    ("custom_nodes: ['https://github.com/u']", "is not the path of a repository"),
    ("custom_nodes: ['https://h/u/%2e%2e']", "is not the path of a repository"),
    ("custom_nodes: ['x', 'X']", "x is there twice"),
    ("models: []", "models must be an object"),
    ("models: {before: []}", "before is not a field of models"),
    ("models: {before_start: [x]}", "must be an object with url and local_path"),
    ("models: {before_start: [{url: 'https://h/x'}]}", "needs a url and a local_path"),
    ("models: {before_start: [{url: 1, local_path: x}]}", "needs a url and a local_path"),
    ("models: {before_start: [{url: 'https://h/x', local_path: a/x, size: 1}]}", "size is not a field of"),
    ("models: {before_start: [{url: 'https://h/x', local_path: ../x}]}", "local_path must be a path"),
    ("models: {before_start: [{url: 'https://h/x', local_path: /a/../../x}]}", "local_path must be a path"),
    ("models: {before_start: [{url: 'https://h/x', local_path: a/.x}]}", "local_path must be a path"),
    ("models: {before_start: [{url: 'https://h/x', local_path: x}]}", "local_path must be a path"),
    ("models: {before_start: [{url: 'file:///x', local_path: a/x}]}", "downloads only from URLs"),
    ("models: {before_start: [{url: 'https://h/x', local_path: a/x, sha256: 1}]}", "64 hexadecimal digits"),
    ("apt: [a]\napt: [b]", "apt is there twice"),
    ("? [a]\n: b", "a field must have a name"),
    ("x: &a [1]\ny: *a", "aliases (*name) are not supported"),
    ("!!python/object/apply:os.system [ls]", "not valid YAML"),
    ("[" * 5000, "not valid YAML"),
    ("{" * 5000, "not valid YAML"),
    ("apt: " + "[" * 50 + "]" * 50, "too deep"),
    ("apt: [" + "a," * 30_000 + "]", "too many values"),
    ("#" * (LARGEST_BYTES + 1), "is larger than 1024 KB"),
    ("apt: [" + ",".join(f"a{n}" for n in range(MOST_ENTRIES + 1)) + "]", "501 entries"),
]


@pytest.mark.parametrize("refused", REFUSED, ids=[each[0][:40] for each in REFUSED])
def test_what_is_refused(refused: tuple[str, str]) -> None:
    given, reason = refused
    with pytest.raises(InvalidRequest, match=re.escape(reason)) as error:
        read_manifest(given)
    assert "secret" not in str(error.value).replace("a secret", "")


def test_secrets_of_urls_are_kept_apart() -> None:
    model = {"url": "https://me:hush@h/x.safetensors?token=hush", "local_path": "loras/x.safetensors"}
    found = read_manifest({"models": {"before_start": [model]}})
    assert "hush" not in repr(found)
    assert found.secret_urls[found.models[0].url] == model["url"]
