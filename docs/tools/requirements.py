"""Prints what the extra `docs` of pyproject.toml names, one per line: the builder alone, without the package."""

import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
print(*project["optional-dependencies"]["docs"], sep="\n")
