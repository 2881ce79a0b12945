"""Stage `judges`: judgements of the same answers by several judges, as agreement, biases, consistency and rankings."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.base import files
from irlens.base.errors import UserError
from irlens.base.options import at_least, identity
from irlens.commands import contests, finished, runs
from irlens.commands.chat import Judges, WinRate
from irlens.commands.drawing import store_of
from irlens.commands.folder import OutputFolder
from irlens.commands.rerank import check_names
from irlens.retrieve.policy import Say, concat

if TYPE_CHECKING:
    import pandas as pd

    from irlens.measure.judges import JudgeQuality
    from irlens.measure.verdicts import Verdicts
    from irlens.rerank.reranker import Scoring

NO_JUDGEMENTS = "holds no judgements (instruction, output_1, output_2, preference); `irlens winrate` makes them"
TABLES = ("judges", "agreement", "bias", "lengths")


def judges(settings: Judges, say: Say = print) -> tuple[Path, dict[str, pd.DataFrame]]:
    """Compares what judges said; returns the folder and its tables by name (`irlens.measure.judges.JudgeQuality`).

    The folder holds judges.csv, agreement.csv, bias.csv, lengths.csv; where prompts have several systems rankings.csv and
    per_query.parquet; judges.md, all of it as a page; figure-agreement, -bias, -length and -rankings-JUDGE (PNG, PDF, CSV);
    scores/ of rerankers. Raises UserError: no judgements at a place, one judge alone, two with fewer than two prompts in common.
    """
    from irlens.measure import judges as measuring
    from irlens.measure import rankings, verdicts

    at_least(0, resamples=settings.resamples)
    measures = rankings.parsed(settings.measures)
    found = verdicts.gathered(_sets(settings, say), settings.order)
    graders, more = list(found.judges), _rerankers(settings)
    verdicts.check(found, say, len(more))
    out = Path(settings.out or Path("irlens-out") / ("judges-" + "-".join(map(_stem, settings.sets or ())))[:100])
    about = {scoring.name: scoring.identity for scoring in more}
    kept = identity(settings, sets=None, judge=about, content=_content(found))
    with OutputFolder(out, "judges", kept, store=store_of(settings, out), say=say, asked=settings) as folder:
        if folder.finished:
            return out, _read(out)
        for scoring in more:
            found = measuring.with_reranker(found, scoring.using(folder=out / "scores"))
        quality = measuring.quality(found, graders, measures, settings.resamples, settings.seed)
        tables = _written(quality, out)
        folder.note(judges=found.judges, pairs=len(found.pairs), prompts=found.prompts, missing=found.missing)
    return out, tables


# -- what is given -------------------------------------------------------------------------------------------------


def _sets(settings: Judges, say: Say) -> dict[str, pd.DataFrame]:
    """Name → judgements of each place. Raises UserError: none is named, one twice, a place without judgements."""
    if not settings.sets:
        raise UserError("judges: name judgements: folders of `irlens winrate`, annotations.json, lists with a baseline")
    places = [Path(name).expanduser().resolve() for name in settings.sets]
    if len(set(places)) < len(places):
        raise UserError("judges: name each set of judgements once")
    names = [_stem(name) for name in settings.sets]
    called = [name if names.count(name) == 1 else f"{places[i].parent.name}-{name}" for i, name in enumerate(names)]
    called = [name if called.count(name) == 1 else f"{name} {i + 1}" for i, name in enumerate(called)]
    return {name: _set(Path(given).expanduser(), say) for name, given in zip(called, settings.sets)}


def _set(where: Path, say: Say) -> pd.DataFrame:
    """The judgements at a place: of a folder of winrate, with the order of each question; of a file; of all in a folder."""
    from irlens.tables.files import read_parquet

    if not where.exists():
        raise UserError(f"{where}: no such file or folder of judgements")
    if (where / contests.JUDGEMENTS).is_file():
        where = where / contests.JUDGEMENTS
    if where.suffix == ".parquet":
        found = read_parquet(where)
        if not {"instruction", "output_1", "output_2", "preference"} <= set(found.columns):
            raise UserError(f"{where}: {NO_JUDGEMENTS}")
        return found
    if where.is_dir():
        made_by = runs.command_of(where)
        own = [] if made_by else sorted(where.glob("*.json"))  # its manifest and facts are no judgements
        some = sorted(where.rglob("annotations*.json")) or own
        if not some:
            what = f"is of `irlens {made_by}` and " if made_by else ""
            raise UserError(
                f"{where}: {what}holds no {contests.JUDGEMENTS} and no annotations.json; name a folder of `irlens winrate`, "
                f"AlpacaEval's annotations.json or lists with a baseline"
            )
        return concat([_of_file(path, say) for path in some])
    return _of_file(where, say)


def _of_file(path: Path, say: Say) -> pd.DataFrame:
    found, judged = contests.outputs_of(str(path), WinRate(), say)
    if not judged:
        raise UserError(f"{path}: {NO_JUDGEMENTS}")
    return found


def _rerankers(settings: Judges) -> list[Scoring]:
    """The rerankers that judge too, ready. Raises UserError for one that is none, or is a judge at a server."""
    from irlens.base import devices
    from irlens.measure.judges import refuse
    from irlens.rerank import by_name
    from irlens.rerank.given import Given
    from irlens.rerank.judge_names import reranker_name
    from irlens.rerank.options import ScoringOptions
    from irlens.rerank.pair_protocols import NAMES

    options = ScoringOptions(policy=settings.policy, devices=settings.devices, batch_size=settings.batch_size)
    given = Given(options=options, seed=settings.seed, devices=devices.choose(settings.devices))
    found = []
    for name in check_names(settings.judge) if settings.judge else ():
        if name in NAMES or name in ("judge", "judge:pointwise"):
            raise UserError(f"--judge {name}: is asked by `irlens winrate`; name the folder that it makes")
        refuse(name)
        meant = reranker_name(name)
        try:
            found.append(replace(by_name.build(meant, given), name=name))
        except UserError as error:
            raise UserError(str(error).replace(f"--reranker {meant}", f"--judge {name}")) from error
    return found


def _stem(path: str) -> str:
    """What a set is called: its folder or file."""
    where = Path(path).expanduser().resolve()
    where = where.parent if where.name in (contests.JUDGEMENTS, "annotations.json") else where
    return where.name.partition(".json")[0] or "judgements"


def _content(found: Verdicts) -> str:
    """Digest of all that was judged, and how."""
    import pandas as pd

    sha = hashlib.sha256(repr(found.judges).encode())
    for frame in (found.pairs, found.each, pd.DataFrame(found.values), pd.DataFrame(found.margins)):
        for row in frame.itertuples(index=False):
            sha.update(repr(tuple(row)).encode("utf-8", "backslashreplace"))
    return sha.hexdigest()[:16]


# -- the folder ----------------------------------------------------------------------------------------------------


def _read(out: Path) -> dict[str, pd.DataFrame]:
    """The tables of a finished folder."""
    there = [name for name in (*TABLES, "rankings") if (out / f"{name}.csv").is_file()]
    tables = {name: finished.table(out / f"{name}.csv") for name in there}
    tables["agreement"] = tables["agreement"].fillna({"against": ""})
    return tables


def _written(quality: JudgeQuality, out: Path) -> dict[str, pd.DataFrame]:
    """The tables by name, in the folder with their figures and their page."""
    from irlens.commands import judges_pages as pages

    tables: dict[str, pd.DataFrame] = {name: getattr(quality, name) for name in TABLES}
    if quality.rankings is not None:
        tables["rankings"] = quality.rankings
        each = quality.rankings.per_query
        each = each.assign(run=each["run"] + " by " + each["judge"]).drop(
            columns="judge"
        )  # systems, to `irlens compare`
        files.write_parquet(each, out / "per_query.parquet")
    for name, table in tables.items():
        files.write_csv(table, out / f"{name}.csv")
    files.write_text(pages.markdown(tables), out / "judges.md")
    pages.draw(tables, out)
    return tables
