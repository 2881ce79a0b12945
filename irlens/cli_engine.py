"""The engine's options on the command line, once for all commands that sample."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import fields
from typing import Annotated, get_type_hints

import typer

from irlens.settings import EngineOptions


def takes_engine_options(command: Callable) -> Callable:
    """`command(..., engine: dict)` with the fields of EngineOptions as options of its own, gathered in `engine`."""
    types = get_type_hints(EngineOptions)
    shared = [
        inspect.Parameter(
            f.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=f.default,
            annotation=Annotated[
                types[f.name], typer.Option(help=f.metadata["help"], rich_help_panel="Engine options")
            ],
        )
        for f in fields(EngineOptions)
    ]
    own = [p for p in inspect.signature(command).parameters.values() if p.name != "engine"]

    @functools.wraps(command)
    def wrapped(**given) -> None:
        engine = {f.name: given.pop(f.name) for f in fields(EngineOptions)}
        command(**given, engine=engine)

    wrapped.__signature__ = inspect.Signature([*own, *shared])
    wrapped.__annotations__ = {p.name: p.annotation for p in (*own, *shared)}
    return wrapped
