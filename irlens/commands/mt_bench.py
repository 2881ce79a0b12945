"""Stage `mt-bench`: systems' answers to MT-Bench's two turns graded, and the table of their grades."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.base import files
from irlens.base.errors import UserError
from irlens.base.options import identity
from irlens.commands import asking, contests, finished, runs
from irlens.commands.chat import MtBench
from irlens.commands.drawing import store_of
from irlens.commands.folder import OutputFolder
from irlens.retrieve.policy import Say, concat
from irlens.tables.formats import mt_bench as layout
from irlens.tables.formats.rows import benchmark_of, first_of, judged_in

if TYPE_CHECKING:
    import pandas as pd

    from irlens.rerank.mt_bench import Grades, Wording
    from irlens.retrieve.options import EngineOptions

SECOND = "second-turn.jsonl"


@dataclass
class Given:
    """What was named: grades, answers to both turns (`question_id, model, answer_1, answer_2`), answers to first turns alone
    (run → question_id → text), and the benchmark's questions, where its folder is known."""

    graded: list[pd.DataFrame] = field(default_factory=list)
    answers: dict[str, pd.DataFrame] = field(default_factory=dict)
    first: dict[str, dict[str, str]] = field(default_factory=dict)
    folder: Path | None = None
    questions: pd.DataFrame | None = None


def mt_bench(settings: MtBench, say: Say = print) -> tuple[Path, pd.DataFrame]:
    """Grades what nobody has graded; returns the folder and its results, none of a run whose second turn is to be drawn.

    The folder holds results.csv (both turns, each, each category), judgements.parquet (a row per system, question and
    turn), per_query.parquet, model_judgment/ in the authors' layout, and, of a judge at a server, answers.jsonl; or
    second-turn.jsonl. Raises UserError: nothing named, answers without a judge, questions or references that are missing.
    """
    wanted = "mt-bench: name grades (model_judgment/…jsonl), answers (model_answer/MODEL.jsonl) or runs"
    asking.check_benchmark(settings, wanted, settings.templates, "FastChat's judge_prompts.jsonl by --templates")
    given = _read(settings, say)
    if settings.second_turn:
        return _second_turn(settings, given, say)
    from irlens.measure import mt_bench as scoring

    graded = [scoring.checked(concat(given.graded))] if given.graded else []
    wording, plan, served = _plan(settings, given, say)
    missing = _missing(settings, given, graded, say)
    out = Path(settings.out or Path("irlens-out") / _name(given, graded))
    told = asking.content(concat(graded) if graded else None), asking.content(None if plan is None else plan.rows)
    kept = identity(settings, systems=told, questions=asking.content(given.questions), dataset=None, references=None)
    kept |= {
        "templates": None,
        "asked": None if plan is None else {"model": plan.model, "wording": repr(wording), "more": dict(plan.more)},
    }
    with OutputFolder(out, "mt-bench", kept, store=store_of(settings, out), say=say, asked=settings) as folder:
        if folder.finished:
            return out, finished.table(out / "results.csv")
        facts: dict = {}
        if plan is not None:
            said, facts = asking.ask(plan, served, settings, say, out)
            graded.append(plan.judged(said).assign(judge=_called(settings, plan.model)))
        grades = scoring.checked(concat(graded)[list(layout.GRADES)])
        results = scoring.scores(grades, given.questions)
        _write(results, grades, out, say)
        if facts.get("refused"):
            folder.asked = None  # those are asked again at the next start
        folder.note(missing=missing, judge=sorted(set(grades["judge"])), **facts)
    return out, results


# -- what is named -------------------------------------------------------------------------------------------------


def _read(settings: MtBench, say: Say) -> Given:
    """Everything named, read. Raises UserError: nothing of that name, a system twice, a run of other prompts."""
    given = Given(folder=benchmark_of(settings.dataset, settings.systems or (), layout.QUESTIONS))
    given.questions = None if given.folder is None else layout.questions(given.folder)
    for name in settings.systems or ():
        path = judged_in(name)
        kind = _kind(path)
        if kind == "grades":
            given.graded.append(layout.grades(path))
            continue
        if given.questions is None:
            raise UserError(f"{name}: answers need the questions; name MT-Bench's folder by --dataset")
        found = layout.answers(path) if kind == "answers" else _of_run(name, given, settings, say)
        for system, some in found.groupby("model", sort=False):
            if str(system) in given.answers:
                raise UserError(
                    f"mt-bench: two systems are called {system!r}; give their folders or tags names of their own"
                )
            given.answers[str(system)] = some
    return given


def _kind(path: Path) -> str:
    """What a path holds, by its first row: grades, answers, or a run."""
    run = path.suffix == ".parquet" or (path / "run.parquet").is_file()
    if run or (path.is_dir() and not any(path.rglob("*.jsonl"))):
        return "run"
    return "grades" if layout.is_grade(first_of(path)) else "answers"


def _of_run(name: str, given: Given, settings: MtBench, say: Say) -> pd.DataFrame:
    """The answers to both turns of a run of second turns; one of first turns alone is kept in `given.first`.

    Raises UserError: prompts that are no questions of MT-Bench.
    """
    import pandas as pd

    from irlens.tables import with_queries

    source = runs.read(name, thought=settings.thought)
    run = runs.without_thoughts(source, "MT-Bench")
    if "query" not in run.columns:
        run = with_queries(run, source.task.topics)
    run = run.assign(tag=run["tag"].astype(str) if "tag" in run.columns else source.name)
    run = run.sort_values("rank", kind="stable").drop_duplicates(["tag", "query_id"]).sort_index()
    assert given.questions is not None
    asked = {(row.turn_1, row.turn_2): row.question_id for row in given.questions.itertuples()}
    starts = {row.turn_1: row.question_id for row in given.questions.itertuples()}
    found, first = [], {}
    for row in run.to_dict("records"):
        users, between = _conversation(row, name)
        if (key := asked.get((users[-2], users[-1])) if len(users) > 1 else None) is not None:
            found.append((key, row["tag"], between, row["text"]))
        elif len(users) == 1 and users[0] in starts:
            first.setdefault(row["tag"], {})[starts[users[0]]] = row["text"]
    if not found and not first:
        raise UserError(f"{name}: answers no question of MT-Bench; they are joined by their text")
    if left := len(run) - len(found) - sum(map(len, first.values())):
        say(f"{name}: {left:,} answers are to other prompts: left out")
    given.first |= first
    if not found and not settings.second_turn:
        raise UserError(f"{name}: answers the first turns alone; --second-turn writes the prompts of the second")
    return pd.DataFrame(found, columns=["question_id", "model", "answer_1", "answer_2"])


def _conversation(row: dict, name: str) -> tuple[list[str], str]:
    """(what the user said, what was answered before the last of it) of a row's prompt."""
    from irlens.tasks import conversations

    field_of = "messages" if row.get("messages") is not None else "query"
    told = conversations.read(row.get(field_of), field_of, name)
    users = [one["content"] for one in told if one["role"] == "user"]
    said = [one["content"] for one in told if one["role"] == "assistant"]
    return users, said[-1] if said else ""


def _second_turn(settings: MtBench, given: Given, say: Say) -> tuple[Path, pd.DataFrame]:
    """The folder with second-turn.jsonl, of one run of first turns. Raises UserError for anything else."""
    import pandas as pd

    from irlens.negatives.export import write_jsonl

    if len(given.first) != 1 or given.answers or given.graded:
        raise UserError("--second-turn: name one run of the first turns, of one model at one temperature")
    ((name, first),) = given.first.items()
    assert given.questions is not None
    lacking = [key for key in given.questions["question_id"] if key not in first]
    if lacking and not settings.allow_missing:
        raise UserError(f"{name}: {len(lacking):,} questions have no answer, the first: {lacking[0]}; --allow-missing")
    rows = list(layout.second_turns(given.questions, first))
    out = Path(settings.out or Path("irlens-out") / f"{_name(given, [])}-second-turn")
    kept = identity(settings, systems=asking.content(pd.DataFrame(rows)), dataset=None)
    with OutputFolder(out, "mt-bench", kept, say=say) as folder:
        write_jsonl(rows, out / SECOND)
        folder.note(prompts=len(rows), missing=len(lacking))
    say(
        f"{len(rows):,} prompts of the second turn: irlens sample --dataset {out / SECOND} draws them, and its run is graded here"
    )
    return out, pd.DataFrame()


# -- asking --------------------------------------------------------------------------------------------------------


def _plan(settings: MtBench, given: Given, say: Say) -> tuple[Wording | None, Grades | None, EngineOptions | None]:
    """What is to be asked, and where; nothing where all is graded. Raises UserError: no judge, no server, no references."""
    if not given.answers:
        if settings.judge is not None:
            raise UserError(f"--judge {settings.judge}: all that is named is graded already")
        return None, None, None
    if settings.judge is None:
        raise UserError(f"{', '.join(given.answers)}: not graded yet; --judge own, or --judge authors, and --base-url")
    from irlens.rerank import mt_bench as judging
    from irlens.rerank.judge_server import reached
    from irlens.retrieve.engines import engine_args

    wording = judging.OWN if settings.judge == "own" else judging.of_file(Path(settings.templates or "").expanduser())
    rows = _rows(settings, given, say)
    served = reached(settings, f"--judge {settings.judge}")
    told = {"tokens": settings.judge_tokens, "temperature": settings.judge_temperature, "more": engine_args(served)}
    return wording, judging.Grades(wording, rows, served.served_model or "", **told), served


def _called(settings: MtBench, model: str) -> str:
    return model if settings.judge == "authors" else f"mt-bench own ({model})"


def _rows(settings: MtBench, given: Given, say: Say) -> pd.DataFrame:
    """A row per system and question: turns, answers, references ("" where none is needed or there). Raises UserError: no
    question answered, a reference that the authors' judge needs."""
    from irlens.rerank.mt_bench import needs_reference

    assert given.questions is not None
    references = _references(settings, given)
    asked = given.questions.merge(references, on="question_id", how="left").fillna(
        {"reference_1": "", "reference_2": ""}
    )
    needed = asked["category"].map(needs_reference)
    lacking = asked[needed & (asked["reference_1"] == "")]
    if len(lacking) and settings.judge == "authors":
        raise UserError(
            f"{len(lacking):,} questions need a reference answer, the first: {lacking['question_id'].iloc[0]}; name them by "
            f"--references (FastChat's reference_answer/gpt-4.jsonl)"
        )
    if len(lacking):
        say(
            f"{len(lacking):,} questions of math, reasoning and coding are graded without a reference answer (--references)"
        )
    asked = asked.assign(**{name: asked[name].where(needed, "") for name in ("reference_1", "reference_2")})
    parts = [asked.merge(some, on="question_id").rename(columns={"model": "run"}) for some in given.answers.values()]
    found = concat(parts)
    if found.empty:
        raise UserError("mt-bench: no system answers any of the questions; they are joined by question_id")
    return found


def _references(settings: MtBench, given: Given) -> pd.DataFrame:
    """`question_id, reference_1, reference_2`, of a file named, else of the benchmark's folder; empty without."""
    import pandas as pd

    assert given.folder is not None
    beside = (given.folder if given.folder.is_dir() else given.folder.parent) / layout.REFERENCES
    path = Path(settings.references).expanduser() if settings.references else beside
    if not settings.references and not any(beside.glob("*.jsonl")):
        return pd.DataFrame(columns=["question_id", "reference_1", "reference_2"], dtype=object)
    found = layout.answers(path).rename(columns={"answer_1": "reference_1", "answer_2": "reference_2"})
    if found["model"].nunique() > 1:
        raise UserError(
            f"{path}: holds the answers of {found['model'].nunique()} models; name one file by --references"
        )
    return found[["question_id", "reference_1", "reference_2"]]


def _missing(settings: MtBench, given: Given, graded: list[pd.DataFrame], say: Say) -> dict[str, int]:
    """How many questions each system lacks. Raises UserError if one does, unless that is allowed."""
    there = {name: set(some["question_id"]) for name, some in given.answers.items()}
    for frame in graded:
        there |= {str(run): set(some["question_id"]) for run, some in frame.groupby("run", sort=False)}
    wanted = set().union(*there.values()) if given.questions is None else set(given.questions["question_id"])
    missing = {name: len(wanted - some) for name, some in there.items() if wanted - some}
    asking.refuse_missing(
        missing, min(wanted - there[next(iter(missing))], default="") if missing else "", settings.allow_missing, say
    )
    return missing


# -- what it writes ------------------------------------------------------------------------------------------------


def _write(results: pd.DataFrame, grades: pd.DataFrame, out: Path, say: Say) -> None:
    """All tables; what has no grade is said, and why."""
    from irlens.negatives.export import write_jsonl
    from irlens.rerank.by_name import slug

    files.write_csv(results, out / "results.csv")
    files.write_parquet(results.per_query, out / "per_query.parquet")
    files.write_parquet(grades, out / contests.JUDGEMENTS)
    for judge, some in grades.groupby("judge", sort=False):
        write_jsonl(list(layout.rows_of(some)), out / "model_judgment" / f"{slug(str(judge))}_single.jsonl")
    none = grades["score"].isna()
    if none.any():
        told = grades["reason"][none].str.partition(":")[0].value_counts()
        why = ", ".join(f"{reason} {count:,}" for reason, count in told.items())
        say(f"{int(none.sum()):,} of {len(grades):,} turns have no grade ({why}): left out of the means, and counted")


def _name(given: Given, graded: list[pd.DataFrame]) -> str:
    """What an output folder is called by default."""
    from irlens.rerank.by_name import slug

    names = [*given.answers, *given.first, *(str(run) for frame in graded for run in frame["run"].unique())]
    return "mt-bench-" + slug("-".join(dict.fromkeys(names)))[:80]
