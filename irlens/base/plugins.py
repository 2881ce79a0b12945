"""Code of one's own in the place of a name: `module:function`. Naming it runs the module."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable
from pathlib import Path

from irlens.base.errors import UserError

FORM = re.compile(r"([A-Za-z_][\w.]*):([A-Za-z_]\w*)")


def named(name: str) -> bool:
    """Is this of the form `module:function`?"""
    return FORM.fullmatch(name) is not None


def function(name: str, option: str) -> Callable:
    """The function, from a module of the working directory or an installed one.

    Raises UserError, naming the `option` that asked for it: no such module or function, or one that fails on import.
    """
    module, _, attribute = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found = getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        raise UserError(
            f"{option} {name}: {error} (a module is looked for in this folder and among the installed ones)"
        ) from error
    except AttributeError as error:
        raise UserError(f"{option} {name}: {error}") from error
    except Exception as error:
        raise UserError(f"{option} {name}: importing it failed ({type(error).__name__}: {error})") from error
    if not callable(found):
        raise UserError(f"{option} {name}: {attribute} is no function")
    return found
