"""python pip.py DIRECTORY -m pip install ... REQUIREMENT: notes a package in the directory, as pip does."""

import sys
from pathlib import Path


def requirements(words: list[str]) -> list[str]:
    if "-r" in words:
        return Path(words[words.index("-r") + 1]).read_text().split()
    return words[words.index("--") + 1 :] if "--" in words else []


def install(directory: Path, requirement: str) -> None:
    name, _, version = requirement.partition("==")
    if name == "impossible" or (directory / "no index").exists():
        sys.exit(f"ERROR: No matching distribution found for {name}")
    info = directory / f"{name}-{version or '1'}.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version or '1'}\n")


if __name__ == "__main__":
    for each in requirements(sys.argv[2:]):
        install(Path(sys.argv[1]), each)
