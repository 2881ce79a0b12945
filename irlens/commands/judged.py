"""Judged responses to learn a reranker from: of a run, of preference pairs or of scored lists; cut, and some held out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.base.errors import UserError
from irlens.commands import runs
from irlens.retrieve.policy import Say

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from irlens.commands.reranking import FitReranker

COLUMNS = ["query_id", "query", "doc_id", "text", "grade", "tier", "iteration", "list", "messages"]


@dataclass(frozen=True)
class Judged:
    """Lists of judged responses, `messages` in each row, what was left out of them, and the `instruction` that their data
    set adds to a question, the end of such messages."""

    lists: pd.DataFrame
    name: str
    where: str  # what messages call it
    left_out: dict[str, int]
    instruction: str = ""

    @property
    def digest(self) -> str:
        """What it holds, whatever file it came in."""
        from irlens.train import list_files

        return list_files.digest(self.lists)


def read(settings: FitReranker, say: Say) -> Judged:
    """The judged responses that a command was given; empty ones are left out, and said.

    Raises UserError: nothing there, nothing that judges, only empty responses.
    """
    import pandas as pd

    given = settings.data
    if isinstance(given, (str, Path)) and _is_run(settings):
        lists, where, name, instruction = _of_run(settings)
    else:
        lists, where, name, instruction = _of_lists(settings)
    empty = lists["text"].map(lambda text: not text.strip()).to_numpy(dtype=bool)
    if empty.all():
        raise UserError(f"{where}: all {len(lists):,} responses are empty")
    if empty.any():
        say(f"{where}: left out {int(empty.sum()):,} empty responses of {len(lists):,}")
    kept = [*COLUMNS, *(["margin"] if "margin" in lists.columns else [])]
    lists = pd.DataFrame(lists[~empty][kept]).reset_index(drop=True)
    return Judged(lists, name, where, {"responses_empty": int(empty.sum())}, instruction)


# -- of a run ------------------------------------------------------------------------------------------------------


def _is_run(settings: FitReranker) -> bool:
    """Whether the data are a run, which other judgements may be beside. Raises UserError for nothing at all."""
    from irlens import tables
    from irlens.tasks import contract, datasets_library
    from irlens.train import list_files

    path = Path(settings.data).expanduser()
    if not path.exists():
        if datasets_library.identifier(str(settings.data)):
            return False
        hint = "; `irlens passk` makes that one" if settings.data == runs.PASSK_OUT else ""
        raise UserError(f"{settings.data}: no such run, file of lists or data set of the hub (owner/name){hint}")
    if settings.qrels or (path / "run.parquet").is_file() or path.suffix == ".run":
        return True
    if path.suffix == ".parquet":
        return {"doc_id", "rank"} <= set(tables.parquet_columns(path))
    return bool(contract.SUFFIX.search(path.name)) and "candidates" in list_files.columns(path)


def _of_run(settings: FitReranker) -> tuple[pd.DataFrame, str, str, str]:
    """(a list of each prompt's responses with their grades, what messages call it, its name, its task's instruction)."""
    from irlens.rerank.given import Given
    from irlens.rerank.scoring import grades_of, need_texts

    source = runs.read(str(settings.data), settings.dataset, settings.split, columns=settings.columns)
    run, (qrels, where) = need_texts(source.run, "a reranker"), runs.qrels_of(source, settings.qrels)
    grades = grades_of(run, qrels, where)
    given = Given(lambda: source.task, where=str(source.path))
    talks, instruction = given.conversations(run), given.task_of(run).instruction
    queries = run["query"] if "query" in run.columns else [talks[q][-1]["content"] for q in run["query_id"]]
    lists = run[["query_id", "doc_id", "text"]].assign(query=queries, grade=grades, iteration=0, list=0)
    return _with(lists, talks), where, source.name, instruction


def _with(lists: pd.DataFrame, talks: dict[str, list[dict]]) -> pd.DataFrame:
    """Lists with the messages that each response answers, and the tier that their grades tell."""
    best = lists.groupby(["query_id", "list"], sort=False)["grade"].transform("max")
    tier = (lists["grade"] == best).map({True: "positive", False: "own"})
    return lists.assign(messages=lists["query_id"].map(talks), tier=tier)


# -- of lists ------------------------------------------------------------------------------------------------------


def _of_lists(settings: FitReranker) -> tuple[pd.DataFrame, str, str, str]:
    """The same of a file, folder or data set of the hub with lists or pairs, or of what Python hands over."""
    import pandas as pd

    from irlens.models.chat import conversations
    from irlens.tasks import forms
    from irlens.train import list_files, preferences

    mapped, data = forms.parse_columns(settings.columns, preferences.NAMES), settings.data
    if isinstance(data, (str, Path)):
        path = Path(data).expanduser()
        found = list_files.read(path, mapped) if path.exists() else list_files.of_hub(str(data), settings.split, mapped)
        where, name = str(data), path.resolve().name.partition(".")[0] if path.exists() else path.name
    else:
        found, where, name = preferences.as_lists(data), "the lists", "lists"
    topics = found.drop_duplicates("query_id", ignore_index=True)[["query_id", "query"]]
    if "messages" in found.columns:
        known = found[found["messages"].notna()].drop_duplicates("query_id").set_index("query_id")["messages"]
        topics = topics.assign(messages=[known.get(query) for query in topics["query_id"]])
    instruction = _instruction(settings)
    talks = conversations(topics, instruction)
    several = found.groupby(["query_id", "iteration", "list"], sort=False).ngroup()
    own = several - several.groupby(found["query_id"]).transform("min")  # one number over all iterations
    return _with(pd.DataFrame(found).assign(list=own.to_numpy()), talks), where, name, instruction


def _instruction(settings: FitReranker) -> str:
    """What a data set adds to its questions, which lists of its prompts do not tell."""
    from irlens import tasks

    return tasks.load(settings.dataset, None, 1).instruction if settings.dataset else ""


# -- held out, and cut ---------------------------------------------------------------------------------------------


def split(judged: Judged, share: float, seed: int) -> tuple[Judged, Judged | None]:
    """(what is learnt from, what is held out): prompts go whole, and those of one text together, by a hash of it.

    None where the share is 0. Raises UserError where a side would be empty.
    """
    from irlens.tasks.contamination import normal

    if not share:
        return judged, None
    lists = judged.lists
    text = lists["messages"].map(lambda turns: normal("\n".join(turn["content"] for turn in turns)))
    order = sorted(set(text), key=lambda one: hashlib.blake2b(f"{seed}:{one}".encode("utf-8", "replace")).digest())
    if len(order) < 2:
        raise UserError(f"{judged.where}: holds one prompt, so none can be held out; --held-out 0 measures nothing")
    chosen = set(order[: min(len(order) - 1, max(1, round(share * len(order))))])
    out = text.isin(chosen).to_numpy()
    parts = [replace(judged, lists=lists[rows].reset_index(drop=True)) for rows in (~out, out)]
    return parts[0], parts[1]


def cut(judged: Judged, size: int, seed: int, balanced: bool = False) -> Judged:
    """What is learnt from: of a list each text once, and `size` of them at most, evenly over their grades, the best and the
    worst among them, or, `balanced`, as many of each grade; which of those of a grade is a function of seed and prompt."""
    import numpy as np

    lists = judged.lists
    once = lists[~lists.duplicated(["query_id", "list", "text"])].reset_index(drop=True)
    rows: list[int] = []
    for (query_id, number), part in once.groupby(["query_id", "list"], sort=False):
        rng = np.random.default_rng([seed, number, *str(query_id).encode("utf-8", "replace")])
        mixed = rng.permutation(part.index.to_numpy())
        falling = mixed[np.argsort(-once["grade"].to_numpy()[mixed], kind="stable")]
        grades = once["grade"].to_numpy()[falling]
        rows += sorted(falling[_alike(grades, size) if balanced else _evenly(len(falling), size)].tolist())
    more = {"responses_twice": len(lists) - len(once), "responses_beyond_list_size": len(once) - len(rows)}
    return replace(judged, lists=once.iloc[rows].reset_index(drop=True), left_out=judged.left_out | more)


def _evenly(n: int, size: int) -> np.ndarray:
    """At most `size` places of n, the first and the last among them."""
    import numpy as np

    return np.arange(n) if n <= size else np.rint(np.linspace(0, n - 1, size)).astype(int)


def _alike(grades: np.ndarray, size: int) -> np.ndarray:
    """At most `size` places, as many of each grade; of more grades than that one each of some, the best and the worst among
    them."""
    import numpy as np

    kinds, counts = np.unique(grades, return_counts=True)
    each = max(1, min(int(counts.min()), size // len(kinds)))
    chosen = np.concatenate([np.flatnonzero(grades == kind)[:each] for kind in kinds])
    return chosen[_evenly(len(chosen), size)]


def check(judged: Judged, compares: Callable[[], bool], objective: str, every_token: float = 0.0) -> None:
    """Raises UserError for judgements that nothing can be learnt from: all alike, or never two of them in one list."""
    grades = judged.lists["grade"]
    if grades.nunique() < 2:
        raise UserError(
            f"{judged.where}: all {len(grades):,} responses have the grade {grades.iloc[0]:g}, so nothing tells good ones from "
            "bad ones"
        )
    by = judged.lists.groupby(["query_id", "list"], sort=False)["grade"]
    if compares() and not by.nunique().gt(1).any():
        few = "every list has one response" if by.size().max() < 2 else "no list has responses of two different grades"
        raise UserError(f"{judged.where}: {few}, and {objective} compares; bce and regression do without")
    if (objective == "bce" or every_token) and not grades.between(0, 1).all():
        raise UserError(
            f"{judged.where}: {'--every-token' if every_token else 'bce'} needs grades from 0 to 1, and there are some from "
            f"{grades.min():g} to {grades.max():g}; "
            "take regression, or an objective that compares"
        )
