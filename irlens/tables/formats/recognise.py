"""Which format a file is in: by its name, or by the keys of its first row; and the tables read from it."""

from __future__ import annotations

from importlib import import_module
from itertools import chain
from pathlib import Path

from irlens.base.errors import UserError, did_you_mean
from irlens.tables.formats.draws import About, Imported, imported
from irlens.tables.formats.rows import rows

FORMATS = {  # name → its module, in the order in which they are tried
    "inspect": "inspect_log",
    "lm-eval": "lm_eval",
    "batch": "batch",
    "alpaca-eval": "alpaca_outputs",
    "mixeval": "mixeval_responses",
    "trl": "trl",
    "plain": "plain",
}


def module(name: str):
    """The reader of a format. Raises UserError for an unknown one."""
    if name not in FORMATS:
        raise UserError(f"--format {name!r}: {did_you_mean(name, FORMATS)}")
    return import_module(f"irlens.tables.formats.{FORMATS[name]}")


def read(
    path: Path | str, format: str | None = None, judged_by: str | None = None, requests: Path | str | None = None
) -> Imported:
    """A run and, where the file judges, qrels, of a file of another tool (or TRL's folder of completions).

    format: one of FORMATS; without it the keys of the first row tell. judged_by: which of the file's judgements (a metric
    of lm-eval, a scorer of inspect_ai, a reward function of TRL); the first without it. requests: the input of a batch,
    whose output holds no prompts. Raises UserError, naming file and row: no such file, keys of no format, a row that is
    not what the first one is.
    """
    path = Path(path).expanduser()
    if format:
        module(format)  # an unknown one is refused before anything is read
    if not path.exists():
        raise UserError(f"{path}: no such file")
    found = rows(path)
    if (first := next(found, None)) is None:
        raise UserError(f"{path}: no rows")
    name = format or next((name for name in FORMATS if module(name).fits(first[1])), None)
    if name is None:
        wanted = "; ".join(f"{name}: {module(name).KEYS}" for name in FORMATS)
        keys = ", ".join(map(str, first[1])) or "nothing"
        raise UserError(f"{first[0]}: of no known format; found: {keys}; wanted: {wanted}")
    reader = module(name)
    if requests is not None and name != "batch":
        raise UserError(f"--requests is for a batch's output, and {path} is of the format {name}")
    about = About(path, None if requests is None else Path(requests).expanduser())
    return imported(name, reader.read(chain([first], found), about), judged_by, str(path))
