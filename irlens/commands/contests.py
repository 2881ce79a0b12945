"""Who competes in a win rate: systems and baseline out of runs and AlpacaEval's files, joined by the text of the prompt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.base.errors import UserError, did_you_mean
from irlens.commands import runs
from irlens.retrieve.policy import Say
from irlens.tables.formats import alpaca_annotations as annotations
from irlens.tables.formats import alpaca_outputs

if TYPE_CHECKING:
    import pandas as pd

    from irlens.commands.chat import WinRate

OUTPUT = ["instruction", "dataset", "output", "generator"]  # columns of outputs
JUDGEMENTS = "judgements.parquet"


@dataclass(frozen=True)
class Contest:
    """Pairs (`tables.formats.alpaca_annotations`: a row per system and prompt, with `preference` where they are judged),
    the prompts that count, in their order, and how many of them each system lacks."""

    pairs: pd.DataFrame
    prompts: list[str]
    judged: bool
    missing: dict[str, int]


def read(settings: WinRate, say: Say) -> Contest:
    """Systems and baseline of a command. Raises UserError: a file of neither, no baseline, a prompt twice, a system that
    lacks prompts (unless `allow_missing`), none that has any."""
    return of_outputs(*outputs_of(settings.outputs or "", settings, say), settings, say)


def of_outputs(found: pd.DataFrame, judged: bool, settings: WinRate, say: Say) -> Contest:
    """`read`, of outputs that are at hand (`outputs_of`)."""
    if settings.baseline is None and not judged:
        raise UserError(
            f"{settings.outputs}: name the baseline: --baseline FILE of its outputs, or one of these systems: "
            f"{', '.join(map(str, dict.fromkeys(found['generator'])))}"
        )
    if judged and settings.baseline is not None:
        found = found.rename(columns={"output_2": "output", "generator_2": "generator"})[OUTPUT]
    answered = None
    if settings.baseline is not None:
        baseline = _baseline(settings, found, say)
        found, judged, answered = _paired(found, baseline), False, baseline["instruction"].tolist()
    prompts = _prompts(settings, found, answered)
    pairs, missing = _complete(found, prompts, settings, say)
    return Contest(pairs, prompts, judged, missing)


# -- files ---------------------------------------------------------------------------------------------------------


def outputs_of(path: str, settings: WinRate, say: Say) -> tuple[pd.DataFrame, bool]:
    """(outputs, False) or (annotations, True) of a run, a folder or a file. Raises UserError for another thing."""
    import pandas as pd

    where = Path(path).expanduser()
    if where.is_dir() and (where / JUDGEMENTS).is_file():
        where = where / JUDGEMENTS
    if not where.exists():
        raise UserError(f"{path}: no such run, file or folder")
    if where.is_dir() or (where.suffix == ".parquet" and _is_run(where)):
        return _of_run(
            runs.read(path, settings.dataset, settings.split, None, settings.thought, settings.columns), say
        ), False
    first, rows = _rows(where)
    if annotations.fits(first):
        return annotations.read(rows), True
    if first.keys() >= set(annotations.PAIR):
        raise UserError(
            f"{path}: annotations without a preference; those of `irlens winrate` and of alpaca_eval have one"
        )
    if "candidates" in first:
        from irlens.tasks import alpaca

        return alpaca.pairs(rows), True
    if alpaca_outputs.fits(first):
        told = [(row["instruction"], row["dataset"], row["output"], row["generator"]) for row in _texts(rows)]
        return _once(pd.DataFrame(told, columns=OUTPUT), path), False
    from irlens.tables.formats import read as imported

    run = imported(where).run
    return _of_frame(run if "tag" in run.columns else run.assign(tag=where.stem), path, say), False


def _rows(path: Path) -> tuple[dict, Iterator[tuple[str, dict]]]:
    """(the first row, all rows with their places)."""
    from irlens.tables.formats.rows import rows

    found = rows(path)
    first = next(found, None)
    if first is None:
        raise UserError(f"{path}: no rows")
    return first[1], chain([first], found)


def _texts(rows: Iterator[tuple[str, dict]]) -> Iterator[dict]:
    """Model outputs, each checked."""
    for where, row in rows:
        if not alpaca_outputs.fits(row) or not all(isinstance(row[key], str) for key in ("instruction", "output")):
            raise UserError(f"{where}: AlpacaEval's model outputs need {alpaca_outputs.KEYS}, texts")
        yield row | {"generator": str(row["generator"]), "dataset": str(row.get("dataset") or "")}


def _is_run(path: Path) -> bool:
    from irlens.tables.files import read_parquet

    return "query_id" in read_parquet(path).columns and "instruction" not in read_parquet(path).columns


def _of_run(source: runs.Source, say: Say) -> pd.DataFrame:
    """The first draw of each prompt of each tag, its thoughts left out, under the name of the tag, else of the folder."""
    run = runs.without_thoughts(source, "a win rate")
    if "query" not in run.columns:
        from irlens.tables import with_queries

        run = with_queries(run, source.task.topics)
    return _of_frame(run if "tag" in run.columns else run.assign(tag=source.name), str(source.path), say)


def _of_frame(run: pd.DataFrame, called: str, say: Say) -> pd.DataFrame:
    first = run.sort_values("rank", kind="stable").drop_duplicates(["tag", "query_id"]).sort_index()
    if len(first) < len(run):
        say(f"{called}: {len(run):,} draws of {len(first):,} prompts: the first of each competes")
    kept = first.assign(dataset="", generator=first["tag"].astype(str)).rename(
        columns={"query": "instruction", "text": "output"}
    )
    return _once(kept[OUTPUT].reset_index(drop=True), called)


def _once(found: pd.DataFrame, called: str) -> pd.DataFrame:
    """`found` itself. Raises UserError for a prompt that a system answers twice."""
    twice = found.duplicated(["generator", "instruction"])
    if twice.any():
        row = found[twice].iloc[0]
        raise UserError(
            f"{called}: {row['generator']} answers {int(twice.sum()):,} prompts twice, the first: {row['instruction']!r:.80}"
        )
    return found


# -- pairs ---------------------------------------------------------------------------------------------------------


def _baseline(settings: WinRate, found: pd.DataFrame, say: Say) -> pd.DataFrame:
    """The outputs of the baseline alone: of a file, or of the system of that name."""
    name = settings.baseline or ""
    if not Path(name).expanduser().exists():
        if name not in set(found["generator"]):
            known = did_you_mean(name, dict.fromkeys(found["generator"]))
            raise UserError(f"--baseline {name}: no such file, and no system of the outputs; {known}")
        return found[found["generator"] == name]
    some, judged = outputs_of(name, settings, say)
    if judged:  # the baseline that these were judged against
        some = some.rename(columns={"output_1": "output", "generator_1": "generator"})[OUTPUT]
        some = some.drop_duplicates(["generator", "instruction"])
    if (several := some["generator"].nunique()) > 1:
        raise UserError(f"--baseline {name}: holds {several} systems; name a file of one")
    return some


def _paired(found: pd.DataFrame, baseline: pd.DataFrame) -> pd.DataFrame:
    """A pair for each output of a system whose prompt the baseline answers; `found` keeps its order."""
    name = baseline["generator"].iloc[0]
    answers = dict(zip(baseline["instruction"], baseline["output"]))
    there = found[(found["generator"] != name) & found["instruction"].isin(answers.keys())]
    if (found["generator"] == name).all():
        raise UserError(f"the outputs hold only the baseline, {name}; a win rate needs a system beside it")
    if there.empty:
        raise UserError(f"no system has a prompt in common with the baseline {name}; prompts are joined by their text")
    told = dict(zip(baseline["instruction"], baseline["dataset"]))
    pairs = there.rename(columns={"output": "output_2", "generator": "generator_2"})
    pairs = pairs.assign(output_1=pairs["instruction"].map(answers), generator_1=name)
    datasets = [own or told[text] for own, text in zip(pairs["dataset"], pairs["instruction"])]
    pairs = pairs.assign(dataset=datasets, annotator="", preference=float("nan"))
    return pairs[list(annotations.COLUMNS)]


def _prompts(settings: WinRate, pairs: pd.DataFrame, answered: list[str] | None) -> list[str]:
    """The prompts that count: of --prompts, else those that the baseline `answered`; of annotations alone those of the
    longest system."""
    if settings.prompts is None:
        if answered is not None:
            return answered
        longest = pairs["generator_2"].value_counts().idxmax()
        return pairs[pairs["generator_2"] == longest]["instruction"].drop_duplicates().tolist()
    first, rows = _rows(Path(settings.prompts).expanduser())
    name = next((key for key in ("instruction", "prompt", "query") if isinstance(first.get(key), str)), None)
    if name is None:
        raise UserError(f"--prompts {settings.prompts}: rows need instruction, prompt or query, a text")
    found = [row[name] if isinstance(row.get(name), str) else _no_prompt(where, name) for where, row in rows]
    return list(dict.fromkeys(found))


def _no_prompt(where: str, name: str) -> str:
    raise UserError(f"--prompts {where}: {name} must be a text")


def _complete(
    pairs: pd.DataFrame, prompts: Sequence[str], settings: WinRate, say: Say
) -> tuple[pd.DataFrame, dict[str, int]]:
    """The pairs of the prompts that count, and how many of these each system lacks."""
    wanted, missing, first = set(prompts), {}, ""
    others = pairs[~pairs["instruction"].isin(wanted)]
    if len(others):
        say(f"{len(others):,} pairs are of prompts that do not count: left out")
    here = pairs[pairs["instruction"].isin(wanted)].reset_index(drop=True)
    if not settings.by_row:
        order = {text: i for i, text in enumerate(prompts)}
        turn = {system: i for i, system in enumerate(dict.fromkeys(here["generator_2"]))}
        places = here.assign(place=here["instruction"].map(order), turn=here["generator_2"].map(turn))
        here = here.loc[places.sort_values(["turn", "place"], kind="stable").index].reset_index(drop=True)
    for system in dict.fromkeys(pairs["generator_2"]):
        there = set(here["instruction"][here["generator_2"] == system])
        if count := len(wanted) - len(there):
            missing[system] = count
            first = first or next(text for text in prompts if text not in there)
    if missing:
        told = ", ".join(f"{system} {count:,}" for system, count in list(missing.items())[:8])
        told += ", …" if len(missing) > 8 else ""
        if not settings.allow_missing:
            raise UserError(
                f"of {len(wanted):,} prompts some are missing: {told} (the first: {first!r:.60}); --allow-missing measures "
                f"each system over those it has"
            )
        say(f"of {len(wanted):,} prompts some are missing: {told}; each system is measured over those it has")
    if here.empty:
        raise UserError("no system has any of the prompts that count; prompts are joined by their text")
    return here, missing
