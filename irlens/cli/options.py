"""A stage's settings as options of its command: one list of names, defaults and help for recipes and command line."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import Field, fields
from typing import Annotated, get_args, get_type_hints

import typer
import typer.core

from irlens.base.errors import UserError
from irlens.base.options import check_secrets, check_values

PANELS = (
    "Recipe",
    "Data",
    "Index",
    "Draws",
    "Judging",
    "Lists",
    "False negatives",
    "Objective",
    "Trainer",
    "Measuring",
    "Figure",
    "Output",
    "Engine",
)  # in order


class Command(typer.core.TyperCommand):
    """A command whose --help stands with the options that no panel is about, so that it needs no panel of its own."""

    def get_help_option(self, ctx):
        """The option --help, in the panel Output."""
        option = super().get_help_option(ctx)
        if option is not None:
            option.rich_help_panel = "Output"
        return option


def takes(kind: type) -> Callable:
    """Makes `command(settings)` a command whose options are the fields of `kind`, in the panels of --help that they name.

    A tuple is written with commas. What was not typed is left to `kind`, whose defaults know that they are defaults.
    """
    types = get_type_hints(kind)
    known = sorted(fields(kind), key=_place)
    tuples = {f.name: number for f in known if (number := _number(types[f.name]))}

    def decorate(command: Callable) -> Callable:
        @functools.wraps(command)
        def wrapped(context: typer.Context, **given) -> None:
            typed = {name: context.get_parameter_source(name) for name in given}
            given = {name: value for name, value in given.items() if typed[name].name != "DEFAULT"}
            check_secrets(given, kind)
            for name, number in tuples.items():
                if given.get(name) is not None:
                    given[name] = numbers(given[name], "--" + name.replace("_", "-"), number)
            check_values(given, kind)
            command(kind(**given))

        asked = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
        parameters = [asked] + [_parameter(f, str | None if f.name in tuples else types[f.name]) for f in known]
        wrapped.__signature__ = inspect.Signature(parameters)
        wrapped.__annotations__ = {p.name: p.annotation for p in parameters}
        return wrapped

    return decorate


def _place(field: Field) -> tuple[int, bool]:
    """Arguments first, then panel by panel."""
    panel = field.metadata.get("panel")
    return (-1, False) if panel is None else (PANELS.index(panel), not field.metadata["first"])


def numbers(text: str, option: str, kind: type = float) -> tuple:
    """Comma-separated numbers. Raises UserError for anything else."""
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError:
        what = "whole numbers" if kind is int else "numbers"
        raise UserError(f"{option} {text!r}: expected {what} separated by commas, such as 1,10") from None


def _number(annotation) -> type | None:
    """float of `tuple[float, ...] | None`; None of anything that is not a tuple."""
    for part in (annotation, *get_args(annotation)):
        if getattr(part, "__origin__", None) is tuple:
            return get_args(part)[0]
    return None


def _parameter(field: Field, annotation) -> inspect.Parameter:
    default = ",".join(map(str, field.default)) if isinstance(field.default, tuple) else field.default
    if field.metadata.get("argument"):
        place = Annotated[annotation, typer.Argument(help=field.metadata["help"])]
        return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=place)
    option = Annotated[
        annotation,
        typer.Option(
            *_flags(field),
            help=_help(field.metadata["help"], default),
            show_default=False,
            metavar=_metavar(annotation),
            rich_help_panel=field.metadata["panel"],
        ),
    ]
    return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=option)


def _flags(field: Field) -> tuple[str, ...]:
    """A switch that is off has one flag: what turns it on."""
    return field.metadata["flags"] or (("--" + field.name.replace("_", "-"),) if field.default is False else ())


def _help(text: str, default) -> str:
    """What an option means, and its default in brackets unless it is None, on or off."""
    return text if default is None or isinstance(default, bool) else rf"{text} \[{default}]"


def _metavar(annotation) -> str:
    """One letter for a number and nothing else, so that a narrow page keeps its room for words."""
    kinds = {annotation, *get_args(annotation)}
    return "N" if int in kinds else "X" if float in kinds else ""
