"""Runs the unchanged commands of the README, the tutorial and the how-to pages, page by page."""

import os
import shlex
import shutil
from collections.abc import Callable

import pytest

from tests.docs.conftest import Desk
from tests.docs.declared import FILES, NOT_RUN, RUN_PAGES, RUNNABLE, STAND_INS
from tests.docs.pages import Block, all_pages, read_page
from tests.sandbox_process import SandboxProcess

TOOLS = ("bash", "curl", "jq", "make", "openssl")
OTHER_MACHINES = ("203.0.113.7", "192.0.2.19")


@pytest.mark.parametrize("name", RUN_PAGES)
def test_every_command_runs(
    name: str,
    desk: Callable[[list[SandboxProcess]], Desk],
    other_machines: Callable[[], list[SandboxProcess]],
) -> None:
    """A page is one script: a block can use the variables of the blocks before it."""
    require_tools()
    page = read_page(name)
    is_about_several = any(address in page.text for address in OTHER_MACHINES)
    here = desk(other_machines() if is_about_several else [])
    script = "\n".join(_steps(name, page.blocks, here))
    done = here.run(script)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{script}"
    assert "null" not in done.stdout.splitlines()  # jq prints null for a missing field


def require_tools() -> None:
    """Skips the test if a command of the pages is not installed; fails it if CI=true."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing and os.environ.get("CI") == "true":
        pytest.fail(f"not here: {', '.join(missing)}")
    if missing:
        pytest.skip(f"not here: {', '.join(missing)}")


def test_every_how_to_page_is_run() -> None:
    how_to = {name for name in all_pages() if name.startswith("docs/how-to/")}
    assert {*how_to, "README.md", "docs/tutorial.md"} == set(RUN_PAGES)


def test_what_is_not_run_is_declared() -> None:
    """Every block that is neither a command nor a file is declared with a reason, and every declared block
    exists."""
    found = {
        (name, block.info, block.first_line)
        for name in RUN_PAGES
        for block in read_page(name).blocks
        if not _is_run(block) and (name, block.info) not in FILES
    }
    declared = {(each.page, each.info): [] for each in NOT_RUN}
    for each in NOT_RUN:
        declared[each.page, each.info].append(each.first_line)
    undeclared = [
        (page, info, line)
        for page, info, line in sorted(found)
        if not any(line.startswith(begin) for begin in declared.get((page, info), []))
    ]
    gone = [
        each
        for each in NOT_RUN
        if not any(
            each[:2] == (page, info) and line.startswith(each.first_line) for page, info, line in found
        )
    ]
    assert (undeclared, gone) == ([], [])
    assert all(each.reason for each in NOT_RUN)


def test_a_file_that_is_written_is_used_afterwards() -> None:
    for (name, info), file in FILES.items():
        blocks = read_page(name).blocks
        (number,) = [number for number, block in enumerate(blocks) if block.info == info]
        assert file in "".join(each.text for each in blocks[number + 1 :] if _is_run(each))


def test_every_stand_in_stands_in_for_something() -> None:
    commands = "".join(each.text for name in RUN_PAGES for each in read_page(name).blocks if _is_run(each))
    unused = []
    for written, there in STAND_INS.items():
        if written not in commands:
            unused.append(written)
        commands = commands.replace(written, there)
    assert unused == []


def _steps(name: str, blocks: tuple[Block, ...], here: Desk) -> list[str]:
    steps = []
    for block in blocks:
        text = _in_place(block.text, here)
        if file := FILES.get((name, block.info)):
            steps.append(f"printf %s {shlex.quote(text)} > {file}")
        elif _is_run(block):
            steps += [f"echo '--- {name}:{block.line}' >&2", text]
    return steps


def _in_place(text: str, here: Desk) -> str:
    for written, there in STAND_INS.items():
        text = text.replace(written, there.format(**here.values))
    return text


def _is_run(block: Block) -> bool:
    return block.info in RUNNABLE
