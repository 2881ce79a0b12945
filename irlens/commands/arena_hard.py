"""Stage `arena-hard`: systems' answers to Arena-Hard's questions judged in two games each, and their win rates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.base import files
from irlens.base.errors import UserError, did_you_mean
from irlens.base.options import at_least, identity
from irlens.commands import asking, contests, finished
from irlens.commands.chat import ArenaHard, WinRate
from irlens.commands.drawing import store_of
from irlens.commands.folder import OutputFolder
from irlens.retrieve.policy import Say, concat
from irlens.tables.formats import arena_hard as layout
from irlens.tables.formats.rows import benchmark_of, first_of, judged_in

if TYPE_CHECKING:
    import pandas as pd

    from irlens.measure.results import Results
    from irlens.rerank.arena_hard import Games, Wording
    from irlens.retrieve.options import EngineOptions


@dataclass
class Given:
    """What was named: rows that are judged, answers per system (`uid, model, output`, and their style), and the benchmark's
    folder, questions and answers, where there is one."""

    judged: list[pd.DataFrame] = field(default_factory=list)
    answers: dict[str, pd.DataFrame] = field(default_factory=dict)
    folder: Path | None = None
    questions: pd.DataFrame | None = None


def arena_hard(settings: ArenaHard, say: Say = print) -> tuple[Path, pd.DataFrame]:
    """Judges what nobody has judged; returns the folder and its results.

    The folder holds results.csv, style.csv (the coefficients of style control), judgements.parquet (a row per system and
    question), per_query.parquet, model_judgment/ in the authors' layout, and, of a judge at a server, answers.jsonl. Raises
    UserError: nothing named, answers without a judge, questions or baselines that are missing; see
    `tables.formats.arena_hard`.
    """
    _check(settings)
    from irlens.measure import arena_hard as scoring

    given = _read(settings, say)
    judged = _without_judges(concat(given.judged), say) if given.judged else None
    wording, plan, served = _plan(settings, given, say)
    pairs = judged if plan is None else plan.pairs if judged is None else concat([judged, plan.pairs])
    scoring.checked(pairs)
    missing = _missing(settings, given, pairs, say)
    out = Path(settings.out or Path("irlens-out") / _name(pairs))
    kept = identity(
        settings,
        systems=asking.content(pairs),
        style=asking.content(_style_answers(given, pairs)),
        dataset=None,
        baseline=None,
    )
    kept |= {
        "checkout": None,
        "asked": None if plan is None else {"model": plan.model, "wording": vars(wording), "more": dict(plan.more)},
    }
    with OutputFolder(out, "arena-hard", kept, store=store_of(settings, out), say=say, asked=settings) as folder:
        if folder.finished:
            return out, finished.table(out / "results.csv")
        facts: dict = {}
        if plan is not None:
            said, facts = asking.ask(plan, served, settings, say, out)
            pairs = concat([*([] if judged is None else [judged]), plan.judged(said, settings.price)])
        results = _measured(pairs, given, settings, out, say)
        if facts.get("refused"):
            folder.asked = None  # those are asked again at the next start
        folder.note(
            questions=int(pairs["uid"].nunique()), missing=missing, judge=sorted(set(pairs["annotator"])), **facts
        )
    return out, results


def _check(settings: ArenaHard) -> None:
    """Raises UserError for settings that cannot be meant."""
    wanted = "arena-hard: name judgements (model_judgment/JUDGE), answers (model_answer/MODEL.jsonl) or runs"
    asking.check_benchmark(settings, wanted, settings.checkout, "a checkout of lmarena/arena-hard-auto by --checkout")
    at_least(0, resamples=settings.resamples)
    if settings.parity and not settings.resamples:
        raise UserError("--parity: its values are those of resamples, and --resamples is 0")


# -- what is named -------------------------------------------------------------------------------------------------


def _read(settings: ArenaHard, say: Say) -> Given:
    """Everything named, read. Raises UserError: nothing of that name, answers without a judge, a system twice."""
    import pandas as pd

    given = Given(folder=benchmark_of(settings.dataset, settings.systems or (), layout.QUESTIONS))
    given.questions = None if given.folder is None else layout.questions(given.folder)
    for name in settings.systems or ():
        path = judged_in(name)
        kind = _kind(path)
        if kind == "judgements":
            given.judged.append(layout.judgements(path, settings.baseline))
            continue
        if given.questions is None:
            raise UserError(f"{name}: answers need the questions; name Arena-Hard's folder by --dataset")
        found = layout.answers(path) if kind == "answers" else _of_outputs(name, given.questions, settings, say)
        for system, some in found.groupby("model", sort=False):
            if str(system) in given.answers:
                raise UserError(
                    f"arena-hard: two systems are called {system!r}; give their folders or tags names of their own"
                )
            given.answers[str(system)] = pd.DataFrame(some)
    if given.answers and settings.judge is None:
        raise UserError(f"{', '.join(given.answers)}: not judged yet; --judge own, or --judge authors, and --base-url")
    if settings.judge is not None and not given.answers:
        raise UserError(f"--judge {settings.judge}: all that is named is judged already")
    return given


def _kind(path: Path) -> str:
    """What a path holds, by its first row: judgements, answers, or something else."""
    run = path.is_dir() and (path / "run.parquet").is_file()
    several = path.is_dir() and not run and any(path.rglob("*.jsonl"))
    if not several and not (path.is_file() and path.suffix == ".jsonl"):
        return "outputs"
    first = first_of(path)
    return (
        "judgements" if layout.is_judgement(first) else "answers" if layout.is_answer(first) or several else "outputs"
    )


def _of_outputs(name: str, questions: pd.DataFrame, settings: ArenaHard, say: Say) -> pd.DataFrame:
    """The answers of a run or of model outputs, found by the text of the question. Raises UserError: none of these."""
    found, judged = contests.outputs_of(name, WinRate(thought=settings.thought), say)
    if judged:
        raise UserError(f"{name}: holds preferences of another benchmark; name answers, or Arena-Hard's judgements")
    joined = questions[["uid", "prompt"]].merge(found, left_on="prompt", right_on="instruction")
    if joined.empty:
        raise UserError(f"{name}: answers none of {len(questions):,} questions; they are joined by their text")
    if left := len(found) - len(set(joined["instruction"])) * found["generator"].nunique():
        say(f"{name}: {max(left, 0):,} answers are to other prompts: left out") if left > 0 else None
    joined = joined.rename(columns={"generator": "model"})[["uid", "model", "output"]]
    return joined.assign(**dict.fromkeys(layout.STYLE, float("nan")))


def _without_judges(judged: pd.DataFrame, say: Say) -> pd.DataFrame:
    """The rows but for those of judges about themselves, and of baselines, as published; how many go is said."""
    gone = judged["generator_2"].isin(set(judged["annotator"])) | (judged["generator_2"] == judged["generator_1"])
    if gone.any():
        names = ", ".join(dict.fromkeys(judged["generator_2"][gone]))
        say(f"{names}: a judge of its own answers, or the baseline itself: {int(gone.sum()):,} rows are left out")
    if gone.all():
        raise UserError("arena-hard: nothing is left: all judgements are of judges or baselines themselves")
    return judged[~gone].reset_index(drop=True)


# -- asking --------------------------------------------------------------------------------------------------------


def _plan(settings: ArenaHard, given: Given, say: Say) -> tuple[Wording | None, Games | None, EngineOptions | None]:
    """What is to be asked, and where; nothing where all is judged. Raises UserError: no server there; see `_pairs`."""
    if not given.answers:
        return None, None, None
    from irlens.rerank import arena_hard as judging
    from irlens.rerank.judge_server import reached
    from irlens.retrieve.engines import engine_args

    wording = (
        judging.OWN if settings.judge == "own" else judging.of_checkout(Path(settings.checkout or "").expanduser())
    )
    told = {"tokens": settings.judge_tokens, "temperature": settings.judge_temperature}
    wording = replace(wording, **{name: value for name, value in told.items() if value is not None})
    pairs = _pairs(settings, given, wording, say)
    served = reached(settings, f"--judge {settings.judge}")
    model = served.served_model or ""
    name = model if settings.judge == "authors" else f"arena-hard own ({model})"
    return wording, judging.Games.of(pairs.assign(annotator=name), wording, model, engine_args(served)), served


def _pairs(settings: ArenaHard, given: Given, wording: Wording, say: Say) -> pd.DataFrame:
    """A row per system and question that both it and the question's baseline answer."""
    questions = given.questions
    assert questions is not None
    against = {c: settings.baseline or wording.baselines.get(c) for c in questions["category"].unique()}
    if lacking := [category for category, name in against.items() if name is None]:
        raise UserError(f"whom is category {lacking[0]!r} compared with? --baseline NAME says it")
    known = {name: _baseline(name, given, settings, say) for name in dict.fromkeys(against.values()) if name}
    parts = []
    for category, name in against.items():
        asked, base = questions[questions["category"] == category], known[name or ""]
        called = str(base["model"].iloc[0])
        first = base[["uid", "output"]].rename(columns={"output": "output_1"})
        for system, answers in given.answers.items():
            if system == called:
                say(f"{system}: is the baseline of {category}: left out there")
                continue
            both = asked.merge(first, on="uid").merge(
                answers[["uid", "output"]].rename(columns={"output": "output_2"}), on="uid"
            )
            parts.append(both.assign(generator_1=called, generator_2=system))
    found = concat(parts).rename(columns={"prompt": "instruction"}) if parts else questions[:0]
    if found.empty:
        raise UserError("arena-hard: no system answers a question that its baseline answers; they are joined by uid")
    return found.assign(as_it_is=float("nan"), switched=float("nan"), reason="")


def _baseline(name: str, given: Given, settings: ArenaHard, say: Say) -> pd.DataFrame:
    """A baseline's answers: of a system named, a file of any kind, or of the benchmark's folder. Raises UserError for none."""
    assert given.folder is not None and given.questions is not None
    if name in given.answers:
        return given.answers[name]
    there = layout.models(given.folder)
    path = Path(name).expanduser() if Path(name).expanduser().is_file() or "/" in name else there.get(name)
    if path is None:
        raise UserError(f"baseline {name}: no answers in {given.folder / layout.ANSWERS}; {did_you_mean(name, there)}")
    found = layout.answers(path) if _kind(path) == "answers" else _of_outputs(str(path), given.questions, settings, say)
    if found["model"].nunique() > 1:
        raise UserError(f"--baseline {path}: holds {found['model'].nunique()} systems; name a file of one")
    return found


def _missing(settings: ArenaHard, given: Given, pairs: pd.DataFrame, say: Say) -> dict[str, int]:
    """How many questions of its categories each system lacks. Raises UserError if one does, unless that is allowed."""
    questions = given.questions if given.questions is not None else pairs
    wanted = {str(name): set(some["uid"]) for name, some in questions.groupby("category")}
    groups = pairs.groupby(["generator_2", "category"], sort=False)
    there = {(str(system), str(category)): set(some["uid"]) for (system, category), some in groups}
    own = {(base, category) for base, category in zip(pairs["generator_1"], pairs["category"])}
    for key in ((system, category) for system in given.answers for category in wanted):
        if key not in own and key[0] not in (settings.baseline, layout.BASELINES.get(key[1])):
            there.setdefault(key, set())
    lacking = {key: wanted.get(key[1], set()) - some for key, some in there.items()}
    missing = {", ".join(key): len(some) for key, some in lacking.items() if some}
    first = next((min(some) for some in lacking.values() if some), "")
    asking.refuse_missing(missing, first, settings.allow_missing, say)
    return missing


# -- what it writes ------------------------------------------------------------------------------------------------


def _style_answers(given: Given, pairs: pd.DataFrame) -> pd.DataFrame | None:
    """All answers of the pairs' systems and baselines that are at hand, those named first."""
    there = {} if given.folder is None else layout.models(given.folder)
    names = set(pairs["generator_1"]) | set(pairs["generator_2"])
    read = [layout.answers(path) for name, path in there.items() if name in names and name not in given.answers]
    found = [*given.answers.values(), *read]
    if "output_1" in pairs.columns:  # a baseline of a file elsewhere
        known = {name for some in found for name in some["model"]}
        base = pairs[~pairs["generator_1"].isin(known) & pairs["output_1"].notna()]
        base = base.rename(columns={"generator_1": "model", "output_1": "output"}).drop_duplicates(["model", "uid"])
        if len(base):
            found.append(base[["uid", "model", "output"]].assign(**dict.fromkeys(layout.STYLE, float("nan"))))
    return concat(found) if found else None


def _measured(pairs: pd.DataFrame, given: Given, settings: ArenaHard, out: Path, say: Say) -> Results:
    """The results, and all tables."""
    from irlens.measure import arena_hard as scoring
    from irlens.rerank.by_name import slug

    answers = _style_answers(given, pairs)
    styled = pairs if answers is None else scoring.styled(pairs, answers)
    seed = settings.seed_of("bootstrap")
    results, style = scoring.scores(styled, resamples=settings.resamples, seed=seed, parity=settings.parity)
    files.write_csv(results, out / "results.csv")
    files.write_csv(style, out / "style.csv")
    files.write_parquet(results.per_query, out / "per_query.parquet")
    files.write_parquet(pairs, out / contests.JUDGEMENTS)
    for (judge, system), some in pairs.groupby(["annotator", "generator_2"], sort=False):
        from irlens.negatives.export import write_jsonl

        write_jsonl(
            list(layout.rows_of(some)), out / layout.JUDGEMENTS / slug(str(judge)) / f"{slug(str(system))}.jsonl"
        )
    _tell(pairs, results, style, say)
    return results


def _tell(pairs: pd.DataFrame, results: Results, style: pd.DataFrame, say: Say) -> None:
    """What has no verdict and why, and what style control rests on."""
    none = pairs["as_it_is"].isna() | pairs["switched"].isna()
    if none.any():
        told = pairs["reason"][none].str.partition(":")[0].value_counts()
        why = ", ".join(f"{reason} {count:,}" for reason, count in told.items())
        say(
            f"{int(none.sum()):,} of {len(pairs):,} questions have not two verdicts ({why}): left out of the win rates, and counted"
        )
    rates = results["measure"].str.partition(":")[0]
    if style.empty:
        say("style is not controlled: it needs the answers of systems and baselines (model_answer/ of --dataset)")
    elif results[rates == "SCWinRate"]["run"].nunique() == 1:
        say("SCWinRate is at the average style of the systems given, and one is: name others' judgements beside it, or read "
            "EqualStyleWinRate")  # fmt: skip


def _name(pairs: pd.DataFrame) -> str:
    """What an output folder is called by default."""
    from irlens.rerank.by_name import slug

    names: Sequence[str] = list(dict.fromkeys(map(str, pairs["generator_2"])))
    return "arena-hard-" + slug("-".join([*map(str, dict.fromkeys(pairs["annotator"])), *names]))[:80]
