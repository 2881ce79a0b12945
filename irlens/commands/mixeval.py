"""Stage `mixeval`: systems' responses to MixEval's prompts judged, and the table of their scores."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.base import files
from irlens.base.errors import UserError
from irlens.base.options import at_least, identity, one_of
from irlens.commands import asking, finished, runs
from irlens.commands.drawing import store_of
from irlens.commands.exchange import MixEval
from irlens.commands.folder import OutputFolder
from irlens.commands.settings import heat
from irlens.retrieve.policy import Say, concat

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from irlens.rerank.mixeval import Answered, ItemJudge
    from irlens.rerank.mixeval_judge import Wording
    from irlens.retrieve.options import EngineOptions
    from irlens.tasks.mixeval import Item

JUDGES = ("rules", "authors", "own")
DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


@dataclass(frozen=True)
class System:
    """One of the things to be measured: what it is called, its run, and a digest of where that lies."""

    name: str
    run: pd.DataFrame
    revision: str


def mixeval(settings: MixEval, say: Say = print) -> tuple[Path, pd.DataFrame, pd.DataFrame]:
    """Judges and scores; returns the folder, the scores and, of several systems, the paired tests over distinct items.

    The folder holds results.csv (by set, type and benchmark), tests.csv, per_query.parquet (of distinct items),
    mixeval.md (the table), the manifest, and in systems/ for each a folder with its run.parquet and qrels.parquet. Raises
    UserError: no benchmark, files that are cut or of another version, ids twice, items without a response.
    """
    _check(settings)
    from irlens.measure import mixeval as scoring
    from irlens.rerank import mixeval as answers
    from irlens.rerank.by_name import slug
    from irlens.tasks import contract
    from irlens.tasks import mixeval as benchmark

    version = benchmark.version_of(_dataset(settings))
    items = [item for split in scoring.present(version) for item in benchmark.read(version, split)]
    systems = [system for name in settings.runs or () for system in _systems(name, settings, items, say)]
    if again := [name for name, count in Counter(system.name for system in systems).items() if count > 1]:
        raise UserError(f"mixeval: two systems are called {again[0]!r}; give their folders or tags names of their own")
    judge, asked = judge_of(settings, version)  # refused before anything is judged
    found = {system.name: answers.answered(system.run, items, scoring.chosen(settings.split)) for system in systems}
    for one in found.values() if not settings.allow_missing else ():
        answers.refuse_missing(one.missing, one.items)
    out = Path(settings.out or Path("irlens-out") / ("mixeval-" + "-".join(map(slug, found)))[:100])
    kept = {"runs": {s.name: s.revision for s in systems}, "dataset": contract.digest(*benchmark.files_of(version))}
    kept |= {"templates": None, "asked": asked}
    with OutputFolder(
        out, "mixeval", identity(settings, **kept), store=store_of(settings, out), say=say, asked=settings
    ) as folder:
        if folder.finished:
            return out, finished.table(out / "results.csv"), finished.table(out / "tests.csv")
        verdict, facts = judge(list(found.values()), out, say)
        scored = {name: answers.judged(one, verdict) for name, one in found.items()}
        results, tests = _written(systems, found, scored, settings, out, say)
        if facts.get("refused"):
            folder.asked = None  # those are asked again at the next start
        data = runs.data_of(str(version), settings.split or "")
        folder.note(data=data, judge=settings.judge, systems=list(found), **facts)
    return out, results, tests


def _check(settings: MixEval) -> None:
    """Raises UserError for settings that cannot be meant."""
    from irlens.tasks.mixeval import SPLITS

    if not settings.runs:
        raise UserError("mixeval: name a run, its folder, or a response file of MixEval")
    one_of(JUDGES, judge=settings.judge)
    one_of(SPLITS, split=settings.split)
    asking.check(settings)
    heat(judge_temperature=settings.judge_temperature)
    at_least(1, judge_tokens=settings.judge_tokens, judge_rounds=settings.judge_rounds)


def _dataset(settings: MixEval) -> Path:
    """The folder asked for, else the one that the first run was drawn for."""
    from irlens.tasks.mixeval import place

    if settings.dataset:
        return Path(place(settings.dataset)).expanduser()
    first = Path(settings.runs[0]).expanduser()
    recorded = runs.read(str(first)).dataset if _is_run(first) else None
    if recorded is None:
        raise UserError(f"{first}: nothing beside it says where MixEval is; give --dataset FOLDER")
    return Path(recorded)


# -- the systems ---------------------------------------------------------------------------------------------------


def _is_run(path: Path) -> bool:
    return (path / "run.parquet").is_file() or path.suffix == ".parquet"


def _systems(name: str, settings: MixEval, items: Sequence[Item], say: Say) -> list[System]:
    """The systems of an argument: a run's tags, each one, or the response files at a path."""
    from irlens.tasks import contract

    path = Path(name).expanduser()
    if not path.exists():
        raise UserError(f"{name}: no such run, file or folder")
    if not _is_run(path):
        return [_of_files(path, items, say)]
    source = runs.read(name, thought=settings.thought)
    run = runs.without_thoughts(source, "MixEval")
    tags = run["tag"].astype(str) if "tag" in run.columns else [source.name] * len(run)
    where = source.path / "run.parquet" if source.path.is_dir() else source.path
    parts = run.assign(tag=tags).groupby("tag", sort=False)
    return [System(str(tag), part.reset_index(drop=True), contract.digest(where)) for tag, part in parts]


def _of_files(path: Path, items: Sequence[Item], say: Say) -> System:
    """A system's response files: one, or all in a folder that are of this version, under the items' identifiers."""
    from irlens.tables import formats
    from irlens.tasks import contract

    some = [path] if path.is_file() else _responses(path, items[0].query_id.partition("/")[0], say)
    parts = [_located(formats.read(one, "mixeval").run, one, items) for one in some]
    name = (
        path.name if path.is_dir() else re.sub(r"_close_(freeform|multichoice)(_hard)?$", "", path.name.split(".")[0])
    )
    run = concat(parts)
    if (twice := run["query_id"][run["query_id"].duplicated()]).size:
        raise UserError(f"{path}: {twice.iloc[0]} has a response in two of its files ({len(twice):,} such items)")
    return System(name, run.assign(tag=name), contract.digest(*some))


def _responses(folder: Path, version: str, say: Say) -> list[Path]:
    """The response files in a folder; those of other versions, by the date in their path, are left out with a line."""
    endings = (".json", ".jsonl", ".json.gz", ".jsonl.gz")
    some = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.name.endswith(endings)]
    some = [p for p in some if "_close_" in p.name or not p.name.startswith(("judge_results", "score", "."))]
    date = DATE.search(version)
    here = [p for p in some if not (found := DATE.findall(str(p.relative_to(folder)))) or not date or date[0] in found]
    if not here:
        raise UserError(
            f"{folder}: no run.parquet, and no response file of {version} (.jsonl or .json, by line or list)"
        )
    if left := len(some) - len(here):
        say(f"{folder}: {left:,} files are of other versions than {version}: left out")
    return here


def _located(run: pd.DataFrame, path: Path, items: Sequence[Item]) -> pd.DataFrame:
    """A file's rows under the identifiers of the set that it answers: the one with most of its ids and prompts. What was
    asked of a base model holds the prompt after five examples.

    Raises UserError for records that are not that set's.
    """
    by_split: dict[str, dict[str, Item]] = {}
    for item in items:
        by_split.setdefault(item.split, {})[f"{item.kind}/{item.id}"] = item
    asked = list(zip(run["query_id"], run["query"]))
    counts = {s: sum(q in some and some[q].prompt in text for q, text in asked) for s, some in by_split.items()}
    split = max(counts, key=lambda name: counts[name])
    known = by_split[split]
    strange = [q for q, text in asked if q not in known or known[q].prompt not in text]
    if strange:
        version = items[0].query_id.partition("/")[0]
        raise UserError(
            f"{path}: {len(strange):,} of {len(run):,} records ({strange[0]}, …) are not in {version}, {split}"
        )
    names = run["query_id"].map({key: item.query_id for key, item in known.items()})
    return run.assign(query_id=names, doc_id=names + "/00000")


# -- judging -------------------------------------------------------------------------------------------------------


Judging = Callable[[Sequence["Answered"], Path, Say], tuple["ItemJudge", dict]]  # asks all at once; facts


def judge_of(settings: MixEval, version: Path) -> tuple[Judging, object]:
    """Who judges; and what it is told, for the manifest. Raises UserError: no server there, messages that lack a place."""
    from irlens.rerank import mixeval as answers
    from irlens.rerank import mixeval_judge as judging
    from irlens.rerank.judge_server import reached
    from irlens.tasks.mixeval import templates

    if settings.judge == "rules":
        return lambda found, out, say: (partial(answers.by_rule, parity=settings.parity), {}), None
    path = Path(settings.templates).expanduser() if settings.templates else templates(version)
    wording = judging.OWN if settings.judge == "own" else judging.of_file(path)
    served = reached(settings, f"--judge {settings.judge}", instead=", or is rules")
    told = {"free": wording.free, "choice": wording.choice, "model": served.served_model}
    return partial(_asked, wording, served, settings), told


def _asked(
    wording: Wording, served: EngineOptions, settings: MixEval, found: Sequence[Answered], out: Path, say: Say
) -> tuple[ItemJudge, dict]:
    """Asks about the responses of all systems, each once; what has no verdict is said, and why."""
    from irlens.base import seeds
    from irlens.rerank.mixeval import texts_of
    from irlens.rerank.mixeval_judge import Verdicts
    from irlens.retrieve.engines import engine_args

    texts = concat([texts_of(one)[1] for one in found])
    plan = Verdicts(wording, found[0].known, texts, served.served_model or "", settings.judge_tokens, settings.judge_rounds,
                    settings.judge_temperature, seeds.folded(settings.seed_of("judging")) % 2**31, engine_args(served))  # fmt: skip
    said, facts = asking.ask(plan, served, settings, say, out)
    none = Counter(said[key].reason.partition(":")[0] for key in plan.questions if said[key].preference is None)
    if none:
        why = ", ".join(f"{reason} {count:,}" for reason, count in none.items())
        say(f"{none.total():,} of {len(plan.questions):,} responses have no verdict ({why}): unread, they count 0")
    return lambda rows, items: plan.judged(rows, said), facts


# -- the folder ----------------------------------------------------------------------------------------------------


def _written(
    systems: Sequence[System],
    found: Mapping[str, Answered],
    scored: Mapping[str, pd.DataFrame],
    settings: MixEval,
    out: Path,
    say: Say,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The tables in the folder; returns scores and tests."""
    from irlens.measure import mixeval as scoring
    from irlens.rerank.by_name import slug

    results = scoring.together([scoring.scores(scored[name], one, settings.parity) for name, one in found.items()])
    tests = _tests(found, scored, settings, say)
    files.write_csv(results, out / "results.csv")
    files.write_csv(tests, out / "tests.csv")
    files.write_parquet(results.per_query, out / "per_query.parquet")
    files.write_text(scoring.markdown(results), out / "mixeval.md")
    for system in systems:
        folder = out / "systems" / slug(system.name)
        files.write_parquet(system.run, folder / "run.parquet")
        files.write_parquet(scoring.qrels(scored[system.name]), folder / "qrels.parquet")
    return results, tests


def _tests(
    found: Mapping[str, Answered], scored: Mapping[str, pd.DataFrame], settings: MixEval, say: Say
) -> pd.DataFrame:
    """Paired tests of every two systems, over the items that all of them answer; how many are left out is said."""
    import pandas as pd

    from irlens.measure import mixeval as scoring
    from irlens.measure.results import compare

    columns = ["before", "after", "measure", "difference", "low", "high", "p", "effect", "n", "p_holm"]
    lacking = {item for one in found.values() for some in one.missing.values() for item in some}
    rows = {name: some[~some["query_id"].isin(lacking)] for name, some in scored.items()}
    if len(found) < 2 or any(some.empty for some in rows.values()):
        return pd.DataFrame(columns=columns)
    each = [scoring.scores(rows[name], one, settings.parity) for name, one in found.items()]
    common = [title for title in scoring.TITLES.values() if all((one["measure"] == title).any() for one in each)]
    if lacking and common:
        say(f"tests: {len(lacking):,} items that some system lacks are left out")
    return compare(*each, measures=common, seed=settings.seed) if common else pd.DataFrame(columns=columns)


def response_files(run: pd.DataFrame, items: Sequence[Item], name: str, out: Path) -> list[Path]:
    """Writes a system's first response to each item as MixEval's own code reads it: `SET/VERSION/NAME_close_….jsonl`.

    Raises UserError for a run that answers none of the items by their identifiers.
    """
    from irlens.negatives.export import write_jsonl

    first = run.sort_values("rank", kind="stable").drop_duplicates("query_id")
    texts, rows = dict(zip(first["query_id"], first["text"])), {}
    for item in items:
        if item.query_id in texts:
            date = DATE.search(item.query_id.partition("/")[0])
            kind = item.kind.replace("-form", "form").replace("multiple-", "multi") + "_hard" * item.split.endswith(
                "hard"
            )
            where = Path(item.split.replace("-", "_")) / (date[0] if date else "version") / f"{name}_close_{kind}.jsonl"
            row = item.record | {"formated_input": item.prompt, "id": item.id, "response": texts[item.query_id]}
            rows.setdefault(out / name / where, []).append(row)
    if not rows:
        raise UserError(f"{name}: no query of the run is an item of MixEval by its identifier")
    for path, some in rows.items():
        write_jsonl(some, path)
    return list(rows)
