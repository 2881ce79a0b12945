"""Stage `winrate`: systems against a baseline by a judge, as win rates plain, discrete and length-controlled."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.base import files
from irlens.base.errors import UserError
from irlens.base.options import at_least, identity, positive
from irlens.base.progress import progress_bar
from irlens.commands import asking, contests, finished
from irlens.commands.chat import WinRate
from irlens.commands.contests import Contest
from irlens.commands.drawing import store_of
from irlens.commands.folder import OutputFolder
from irlens.retrieve.policy import Say
from irlens.tables.formats import alpaca_annotations as annotations
from irlens.tables.formats import alpaca_outputs

if TYPE_CHECKING:
    import pandas as pd

    from irlens.measure.leaderboard import Difficulty
    from irlens.measure.results import Results
    from irlens.measure.winrate import Gamed


def winrate(settings: WinRate, say: Say = print) -> tuple[Path, pd.DataFrame]:
    """Judges what nobody has judged; returns the folder and its results.

    The folder holds results.csv, leaderboard.csv (AlpacaEval's names, in points), against.csv (every two systems),
    judgements.parquet (a row per system and prompt), per_query.parquet, annotations/ and model_outputs/ in AlpacaEval's
    layout, and, of a judge at a server, answers.jsonl: every answer as it came. Raises UserError: see `contests.read`,
    `pair_judges.choose`; too many questions.
    """
    from irlens.commands import pair_judges
    from irlens.measure import leaderboard

    typed, settings = settings, with_files(checked(settings))

    contest = contests.read(settings, say)
    leaderboard.checked(contest.pairs, contest.judged)
    difficulty, gamed = controls(settings, contest, say)
    judge = pair_judges.choose(settings, contest, say)
    out = Path(settings.out or Path("irlens-out") / f"winrate-{_slug(judge.name)}-{_stem(settings.outputs or '')}")
    files_of = {name: _digest(getattr(settings, name)) for name in ("difficulty", "gamed")}
    kept = identity(settings, outputs=_content(contest), judge=judge.name, **files_of, about=judge.identity)
    kept |= {"baseline": None, "prompts": None, "template": None}  # said by `outputs` and `about`
    with OutputFolder(out, "winrate", kept, store=store_of(settings, out), say=say, asked=typed) as folder:
        if folder.finished:
            return out, finished.table(out / "results.csv")
        pairs, facts = judge.judged(contest.pairs, out)
        pairs = pairs.assign(annotator=judge.name) if judge.name != pair_judges.STORED else pairs
        files.write_parquet(pairs, out / contests.JUDGEMENTS)
        results = _measured(pairs, difficulty, gamed, settings, out)
        _tell(pairs, results, say)
        if facts.get("refused"):
            folder.asked = None  # those are asked again at the next start
        folder.note(prompts=len(contest.prompts), missing=contest.missing, judge=judge.name, **facts)
    return out, results


def with_files(settings: WinRate) -> WinRate:
    """The settings with AlpacaEval's own files where they say `alpacaeval`. Raises UserError where these are not to be had."""
    from irlens.tasks import alpacaeval

    return replace(settings, **{name: alpacaeval.meant(name, getattr(settings, name)) for name in alpacaeval.FILES})


def checked(settings: WinRate) -> WinRate:
    """The settings themselves. Raises UserError for numbers out of range, an unknown judge, and options that contradict each
    other."""
    from irlens.commands import pair_judges

    if not settings.outputs:
        raise UserError("winrate: name the outputs: a run or its folder, model_outputs.json, annotations.json, …")
    at_least(0, resamples=settings.resamples)
    at_least(1, concurrency=settings.concurrency, judge_tokens=settings.judge_tokens)
    positive(timeout=settings.timeout)
    asking.check(settings)
    pair_judges.check(settings.judge)
    if settings.gamed and not settings.difficulty:
        raise UserError("--gamed needs --difficulty beside it (the file of gamed rows will do for both)")
    if settings.by_row and not settings.difficulty:
        raise UserError("--by-row says how --difficulty is read, which is not given")
    return settings


def controls(settings: WinRate, contest: Contest, say: Say) -> tuple[Difficulty | None, Gamed | None]:
    """What the length control reads of AlpacaEval's files; which one is missing, and what it costs, is said."""
    from irlens.measure.winrate import Gamed
    from irlens.tables.formats import alpaca_lengths

    if not settings.difficulty:
        say(
            "length control: without AlpacaEval's files, about 0.6 points from the published numbers (--difficulty, --gamed)"
        )
        return None, None
    by_text = alpaca_lengths.read_difficulty(Path(settings.difficulty).expanduser(), contest.prompts)
    if unknown := [text for text in contest.pairs["instruction"].unique() if text not in by_text]:
        raise UserError(
            f"--difficulty {settings.difficulty}: has not {len(unknown):,} prompts, such as {unknown[0]!r:.60}"
        )
    difficulty = list(by_text.values()) if settings.by_row else by_text
    if not settings.gamed:
        say("length control: without the gamed rows, about 1 point from the published numbers (--gamed)")
        return difficulty, None
    return difficulty, Gamed(**alpaca_lengths.read_gamed(Path(settings.gamed).expanduser()))


def _digest(path: str | None) -> str | None:
    return None if path is None else hashlib.sha256(Path(path).expanduser().read_bytes()).hexdigest()[:16]


def _content(contest: Contest) -> str:
    """What competes: the texts of all pairs, and their preferences where they are judged."""
    columns = [
        *annotations.PAIR,
        "generator_1",
        "generator_2",
        *(["annotator", "preference"] if contest.judged else []),
    ]
    sha = hashlib.sha256(json.dumps(contest.prompts).encode())
    for row in zip(*(contest.pairs[column] for column in columns)):
        sha.update(repr(row).encode("utf-8", "backslashreplace"))
    return sha.hexdigest()[:16]


def _slug(name: str) -> str:
    from irlens.rerank.by_name import slug

    return slug(name)


def _stem(path: str) -> str:
    """What an output folder is named after."""
    where = Path(path).expanduser().resolve()
    where = where.parent if where.name in ("run.parquet", "model_outputs.json", "annotations.json") else where
    return where.name.partition(".")[0] or "outputs"


# -- what it writes ------------------------------------------------------------------------------------------------


def _measured(
    pairs: pd.DataFrame, difficulty: Difficulty | None, gamed: Gamed | None, settings: WinRate, out: Path
) -> Results:
    """The results, and all tables but the judgements."""
    from irlens.measure import leaderboard

    frame = leaderboard.checked(pairs)
    seed = settings.seed_of("bootstrap")
    with progress_bar(passing=True) as progress:
        bar = progress.add_task("length control of systems", total=frame["generator_2"].nunique(), rate="")
        told = {"resamples": settings.resamples, "seed": seed, "done": lambda: progress.update(bar, advance=1)}
        fits = leaderboard.fitted(frame, difficulty, gamed, **told)
    results = leaderboard.table(frame, fits, settings.seed)
    files.write_csv(results, out / "results.csv")
    files.write_parquet(results.per_query, out / "per_query.parquet")
    files.write_csv(leaderboard.published(frame, fits), out / "leaderboard.csv")
    if len(fits) > 1:
        files.write_csv(leaderboard.against(frame, fits, difficulty, seed), out / "against.csv")
    for about, part in leaderboard.systems(frame):
        system = _slug(about["run"])
        _write_json(annotations.rows_of(part), out / "annotations" / f"{system}.json")
        rows = alpaca_outputs.rows_of(part["instruction"], part["output_2"], about["run"], part["dataset"])
        _write_json(rows, out / "model_outputs" / f"{system}.json")
    return results


def _write_json(rows: list[dict], path: Path) -> None:
    files.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", path)


CONSTANT = 0.5  # share of a system's answers that may be one and the same text


def _tell(pairs: pd.DataFrame, results: Results, say: Say) -> None:
    """What has no preference and why, which system always says the same, and how the judge is called."""
    import numpy as np

    none = pairs["preference"].isna() | (pairs["preference"] == -1)
    if none.any():
        told = pairs["reason"][none].str.partition(":")[0] if "reason" in pairs.columns else pairs["preference"][none]
        why = (
            ""
            if "reason" not in pairs.columns
            else f" ({', '.join(f'{r} {n:,}' for r, n in told.value_counts().items())})"
        )
        say(
            f"{int(none.sum()):,} of {len(pairs):,} pairs have no preference{why}: left out of the win rates, and counted"
        )
    for system, part in pairs.groupby("generator_2", sort=False):
        count = part["output_2"].value_counts().iloc[0]
        if len(part) >= 20 and count > CONSTANT * len(part):
            say(
                f"{system}: gives one and the same answer to {count:,} of {len(part):,} prompts: this is no measure of a system"
            )
    lc = results[results["measure"] == "LCWinRate"]
    open_ended = lc["run"][~np.isfinite(lc["low"].to_numpy(dtype=float))].tolist()
    if open_ended:
        told = ", ".join(map(str, open_ended[:3])) + (", …" if len(open_ended) > 3 else "")
        say(f"length-controlled win rates without an interval (no resamples, or all of them alike): {told}")
