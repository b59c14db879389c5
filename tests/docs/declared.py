"""Replacements for values in the documentation's commands, and the list of blocks that are not run.

Both are tables: a command that cannot run must be declared here, with a reason.
"""

from typing import NamedTuple

RUNNABLE = ("sh", "bash", "console")
RUN_PAGES = (
    "README.md",
    "docs/tutorial.md",
    "docs/how-to/batch.md",
    "docs/how-to/behind-a-proxy.md",
    "docs/how-to/machine-from-manifest.md",
    "docs/how-to/many-machines.md",
    "docs/how-to/missing-models.md",
    "docs/how-to/one-render-many-machines.md",
    "docs/how-to/other-programs.md",
    "docs/how-to/service.md",
    "docs/how-to/storage.md",
    "docs/how-to/videos.md",
)
"""All pages whose commands are run by the tests."""
FILES = {
    ("docs/how-to/batch.md", "csv"): "prompts.csv",
    ("docs/how-to/other-programs.md", "python"): "render.py",
}
"""Blocks that are written to a file, for a later command."""

STAND_INS = {
    # the machines
    "ssh -p 40738 root@198.53.64.194 -L 8080:localhost:8080": "{left}",
    "ssh -p 41022 root@203.0.113.7": "{middle}",
    "ssh -p 10370 root@192.0.2.19": "{right}",
    "ssh -p 40738 -i $KEY sandbox@127.0.0.1 -L 18188:localhost:18188": "{left}",
    # the server
    "http://127.0.0.1:5000": "{server}",
    "https://renders.example.com": "{server}",
    # files, and a port that may be in use on this machine
    "/home/me/": "{here}/",
    "comfyui_workflow/demo/": "{demo}/",
    "8188": "{free_port}",
    # commands that take too long, or run already: `make -n` checks that the target exists. `make demo` is run
    # by tests/cli/test_demo.py, `make serve` starts what every test here talks to.
    "make demo": "make -n -C {repository} demo",
    "make test": "make -n -C {repository} test",
    "make serve": "make -n -C {repository} serve",
    ". .venv/bin/activate": "command -v comfyui-workflow",
    "3.seed=1..200": "3.seed=1..4",
    "3.seed=1..10": "3.seed=1..2",
    # ids, which a user copies from the previous output
    "BATCH_ID": "$(latest batch)",
    # in the test no run has failed and all have ended, so these commands end with exit code 2
    "batches retry $(latest batch)": "batches retry $(latest batch) || test $? = 2",
    "batches cancel $(latest batch)": "batches cancel $(latest batch) || test $? = 2",
}
"""Applied in this order, to every occurrence."""


class NotRun(NamedTuple):
    page: str
    info: str
    first_line: str
    reason: str


NOT_RUN = (
    NotRun("docs/tutorial.md", "text", "Serving on http://127.0.0.1:5000", "what `make demo` prints"),
    NotRun(
        "docs/tutorial.md", "text", "python3 -m venv .venv", "takes a minute and the network; make does it"
    ),
    NotRun("docs/how-to/other-programs.md", "text", "RUNPOD_ENDPOINT_BASE_URL", "needs their package"),
    NotRun("docs/how-to/behind-a-proxy.md", "text", "ssh -L 5000:127.0.0.1:5000", "needs a second machine"),
    NotRun("docs/how-to/behind-a-proxy.md", "text", "COMFYUI_WORKFLOW_API_TOKEN=", "a file of settings"),
    NotRun("docs/how-to/behind-a-proxy.md", "nginx", "server {", "needs nginx and a certificate"),
    NotRun("docs/how-to/machine-from-manifest.md", "yaml", "apt:", "a file for the next commands"),
    NotRun(
        "docs/how-to/machine-from-manifest.md",
        "text",
        "comfyui-workflow instances provision",
        "needs packages and models of the internet",
    ),
    NotRun("docs/how-to/service.md", "text", "sudo useradd", "needs root"),
    NotRun("docs/how-to/service.md", "ini", "[Unit]", "needs systemd"),
    NotRun("docs/how-to/service.md", "text", "COMFYUI_WORKFLOW_DATA_DIR=", "a file of settings"),
    NotRun("docs/how-to/service.md", "text", "sudo systemctl daemon-reload", "needs systemd"),
    NotRun("docs/how-to/storage.md", "text", "comfyui-workflow run https", "needs a web server"),
    NotRun("docs/how-to/storage.md", "text", "comfyui-workflow run cat.json", "needs a bucket"),
    NotRun("docs/how-to/storage.md", "json", '{"credentials"', "a part of a request"),
    NotRun("docs/how-to/service.md", "text", "sudo git -C", "needs root, and a newer release"),
)
