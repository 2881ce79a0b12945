"""What others call: every public name is typed in full, and checked by `make lint`."""

import inspect
import tomllib
from fnmatch import fnmatch
from importlib import import_module, resources
from pathlib import Path

import pytest

import irlens

ROOT = Path(__file__).resolve().parents[1]
CHECKED = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["mypy"]["files"]


# Public, typed in their signatures, and not yet of types that mypy follows all through: the list only shrinks.
NOT_YET = {
    f"irlens/{file}.py"
    for file in (
        *("retrieve/policy", "rerank/judges", "rerank/by_name", "negatives/lists", "negatives/export", "train/larpo"),
        *("train/losses/__init__",),
    )
}


def public(name: str) -> list:
    """The functions that a public name stands for: itself, or a class's or module's own that have no underscore."""
    found = getattr(irlens, name)
    if inspect.isfunction(found):
        return [found]
    own = [member for key, member in vars(found).items() if not key.startswith("_") or key in ("__init__", "__call__")]
    own = [member.__func__ if isinstance(member, (classmethod, staticmethod)) else member for member in own]
    return [member for member in own if inspect.isfunction(member) and member.__module__.startswith("irlens")]


@pytest.mark.parametrize("name", sorted(irlens._WHERE))
def test_a_public_name_says_its_types_and_is_checked(name):
    for function in public(name):
        signature = inspect.signature(function)
        parameters = [p for p in signature.parameters.values() if p.name not in ("self", "cls")]
        assert not [p.name for p in parameters if p.annotation is p.empty], function.__qualname__
        assert function.__name__ == "__init__" or signature.return_annotation is not signature.empty, (
            function.__qualname__
        )
    module = import_module(irlens._WHERE[name])
    file = Path(module.__file__).relative_to(ROOT).as_posix()
    checked = any(file == one or fnmatch(file, f"{one}/*") for one in CHECKED)
    assert checked != (file in NOT_YET), f"{file} is not in [tool.mypy] files, or no longer in NOT_YET"


def test_the_package_says_that_it_has_types():
    assert (resources.files("irlens") / "py.typed").is_file()
    assert all((ROOT / one).exists() for one in CHECKED)
