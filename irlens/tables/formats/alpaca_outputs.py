"""AlpacaEval's model outputs: a JSON list of `instruction, output, generator, dataset`. Source: AlpacaEval's README.

Each generator is a system of its own (the run's tag).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from irlens.base.errors import UserError
from irlens.tables.formats.draws import About, Draw, Log, text_of

KEYS = "instruction, output, generator"


def fits(row: dict) -> bool:
    """Whether a row is one of AlpacaEval's model outputs."""
    return row.keys() >= {"instruction", "output", "generator"}


def read(rows: Iterable[tuple[str, dict]], about: About) -> Log:
    """Raises UserError, naming the entry: a key that is missing or of another kind."""
    log = Log([])
    for where, row in rows:
        if not fits(row) or not isinstance(row["instruction"], str):
            raise UserError(f"{where}: AlpacaEval's model outputs need {KEYS}; found: {', '.join(row)}")
        log.draws.append(Draw(where, text_of(row["output"], where), row["instruction"], tag=str(row["generator"])))
        log.task = log.task or row.get("dataset")
    systems = {draw.tag for draw in log.draws}
    log.model = next(iter(systems)) if len(systems) == 1 else None
    return log


def rows_of(instructions: Sequence[str], outputs: Sequence[str], generator: str, datasets: Sequence[str]) -> list[dict]:
    """The entries of a model_outputs.json of one system."""
    return [
        {"dataset": dataset, "instruction": instruction, "output": output, "generator": generator}
        for dataset, instruction, output in zip(datasets, instructions, outputs)
    ]
