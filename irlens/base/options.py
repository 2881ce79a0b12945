"""Settings as data: fields with their help and flags, settings from plain values, and the checks of what was given."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, asdict, field, fields

from irlens.base import jsons, secrets
from irlens.base.errors import UserError, did_you_mean

LARGEST = 2**32  # of what a setting counts; seeds end there
LONGEST = 50_000  # letters of a setting
HALF = re.compile("[\x00\ud800-\udfff]")


class Default(int):
    """A whole number that a setting has because nobody gave one: one that was given is an int, even if it is equal."""


def option(
    default,
    text: str,
    *flags: str,
    panel: str,
    free: bool = False,
    first: bool = False,
    secret: bool = False,
    least: float | None = None,
):
    """A setting with its default, what it means, and its flags on the command line (default: --its-name).

    panel: the group of --help that it stands in. free: it changes no result, only where, how fast or how it is shown, so
    a folder made with another value of it is continued. first: it leads its panel. secret: it may hold one, which is kept
    off disk and screen. least: the smallest number that it may be (whole ones: 0).
    """
    about = {
        "help": text,
        "flags": flags,
        "panel": panel,
        "free": free,
        "first": first,
        "secret": secret,
        "least": least,
    }
    return field(default=default, metadata=about)


def argument(default, text: str):
    """A setting that the command line takes by its place, not by a flag."""
    return field(default=default, metadata={"help": text, "argument": True})


def free(kind: type) -> set[str]:
    """The names of the settings of a record that change no result."""
    return {f.name for f in fields(kind) if f.metadata.get("free")}


def identity(settings, **resolved) -> dict:
    """What makes a result what it is: the settings that are not `free`, each as it was resolved where that is given (a data
    set's name and revision, the digest of a model's files, a default). An output folder is continued by the same identity.
    """
    left_out = free(type(settings))
    return {name: value for name, value in asdict(settings).items() if name not in left_out} | resolved


def check_secrets(given: Mapping[str, object], kind: type) -> None:
    """Raises UserError for a secret in a setting that takes none: it would be kept where nobody thinks of it. What the
    others hold is left out of every line from here on."""
    for f in fields(kind):
        value = given.get(f.name)
        if not isinstance(value, (str, tuple, list)):
            continue
        for text in [value] if isinstance(value, str) else [str(one) for one in value]:
            secrets.learn_from(text)
            if not f.metadata.get("secret") and secrets.held_in(text):
                raise UserError(
                    f"{flags_of([f])}: {text}: holds a secret; only --base-url and --engine-args take one, others belong "
                    f"into the environment, such as HF_TOKEN"
                )


def check_values(given: Mapping[str, object], kind: type, where: str = "") -> None:
    """Raises UserError for a value that no setting can have, however it was given: a number that is not finite or beyond
    LARGEST, a count below the setting's `least`, a text with a NUL, half a letter or more than LONGEST letters, an
    empty one where data or a place is named (an unset variable of a shell)."""
    for f in (f for f in fields(kind) if f.name in given):
        value, name = given[f.name], f"{where}: {f.name}" if where else _long_flag(f)
        for one in value if isinstance(value, (tuple, list)) else [value]:
            if isinstance(one, str) and (len(one) > LONGEST or HALF.search(one)):
                what = "a NUL or half a letter" if len(one) <= LONGEST else f"more than {LONGEST:,} letters"
                raise UserError(f"{name}: {one[:40]!r} has {what}")
            if isinstance(one, str) and not one.strip() and f.metadata.get("panel") in ("Data", "Output"):
                raise UserError(f"{name}: is empty; leave it out for the default")
            if isinstance(one, bool) or not isinstance(one, (int, float)):
                continue
            if not abs(one) <= LARGEST:  # nan too
                shown = str(one) if isinstance(one, float) or abs(one) < 10**30 else "one of more than 30 digits"
                raise UserError(f"{name} must be a finite number of at most {LARGEST:,}, got {shown}")
            least = f.metadata.get("least")
            if least is None and "int" in str(f.type) and f.name != "seed":  # which says its own
                least = 0
            if least is not None and one < least:
                raise UserError(f"{name} must be at least {least}, got {one}")


def _long_flag(f: Field) -> str:
    """The option of a setting, in its long form."""
    return next((flag for flag in f.metadata.get("flags", ()) if flag[:2] == "--"), "--" + f.name.replace("_", "-"))


def flags_of(some: Iterable[Field]) -> str:
    """The options of these settings as they are typed, by commas."""
    return ", ".join((f.metadata.get("flags") or ("--" + f.name.replace("_", "-"),))[0] for f in some)


def settings_from(kind: type, values: dict, where: str):
    """A settings object of class `kind` from plain values (a recipe's). Raises UserError for an unknown key or type, or
    one that is missing."""
    known = {f.name: f for f in fields(kind)}
    for key, value in values.items():
        if key not in known:
            raise UserError(f"{where}: unknown setting {key!r}; {did_you_mean(key, known)}")
        if not _fits(value, str(known[key].type)):
            raise UserError(f"{where}: {key} = {value!r:.80} is not of type {known[key].type}")
    for f in known.values():
        if f.default is MISSING and f.default_factory is MISSING and f.name not in values:
            raise UserError(f"{where}: {f.name} is missing")
    check_secrets(values, kind)
    check_values(values, kind, where)
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def _fits(value, annotation: str) -> bool:
    allowed = [part.strip() for part in annotation.split("|")]
    if isinstance(value, bool):
        return "bool" in allowed
    if isinstance(value, (list, tuple)):
        several = [part for part in allowed if part.startswith(("tuple[", "list["))]
        inner = several[0].partition("[")[2].rstrip("]").split(",")[0] if several else None
        return inner is not None and len(value) > 0 and all(_fits(v, inner) for v in value)
    if isinstance(value, int):
        return "int" in allowed or "float" in allowed
    return type(value).__name__ in allowed


def at_least(least: int, **values: int | None) -> None:
    """Raises UserError, naming the option, for a value below `least`; None is one that was not given."""
    for name, value in values.items():
        if value is not None and value < least:
            raise UserError(f"--{name.replace('_', '-')} must be at least {least}, got {value}")


def positive(**values: float | None) -> None:
    """Raises UserError for a value that is not a number above 0; None is one that was not given."""
    for name, value in values.items():
        if value is not None and not 0 < value < float("inf"):
            raise UserError(f"--{name.replace('_', '-')} must be a number above 0, got {value:g}")


def one_of(known: Sequence[str], **values: str | None) -> None:
    """Raises UserError, naming the option, for a value that is not known; None is one that was not given."""
    for name, value in values.items():
        if value is not None and value not in known:
            raise UserError(f"--{name.replace('_', '-')} {value!r}; {did_you_mean(value, known)}")


def parse_json(text: str | None, option: str) -> dict:
    """A JSON object given on the command line; {} for None. Raises UserError for anything else."""
    import json

    if text and secrets.held_in(text):
        secrets.learn_from(text)
        raise UserError(f"{option} {text}: holds a secret; it belongs into the environment, such as HF_TOKEN")
    try:
        found = jsons.loads(text) if text else {}
    except json.JSONDecodeError as error:
        raise UserError(f"{option} {text!r}: malformed JSON ({error.msg} at column {error.colno})") from error
    if not isinstance(found, dict):
        raise UserError(f"{option} {text!r}: expected a JSON object")
    return found


def cutoffs(n: int, at: Sequence[int] | None) -> list[int]:
    """The N of Pass@N: `at`, checked against n, or the paper's 1, 3, 5, 10, 20, 50, 100 as far as n goes, and n."""
    if at is None:
        return sorted({N for N in (1, 3, 5, 10, 20, 50, 100, 200, 500, 1000) if n >= N} | {n})
    if not at or min(at) < 1:
        raise UserError(f"--at: every N must be at least 1, got {', '.join(map(str, at)) or 'none'}")
    if max(at) > n:
        raise UserError(f"-n {n} is smaller than the largest N asked for, {max(at)}; draw at least -n {max(at)}")
    return sorted(set(at))
