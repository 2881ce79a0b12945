"""Who judges a training run's draws: the data set's verifier (right or wrong), or a reward model (scores)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.base.errors import UserError
from irlens.base.files import digest
from irlens.models import catalog
from irlens.retrieve.policy import Say, quiet_if_small

if TYPE_CHECKING:
    import pandas as pd

    from irlens.tasks.contract import Task

ROWS = 512  # draws in a shard of scores


@dataclass(frozen=True)
class Judge:
    """`grade(run, topics, folder)` → qrels; scores are kept in `folder`. By a reward model grades are its scores.

    relative: scores hold within one list (the rows of a query and tag) only, as PairRM's. identity: what a result
    depends on.
    """

    name: str
    grade: Callable[[pd.DataFrame, pd.DataFrame, Path], pd.DataFrame]
    is_reward: bool = False
    relative: bool = False
    identity: str | None = None


def of_task(task: Task) -> Judge:
    """The verifier of a task."""
    from irlens.rerank.verify import verify

    return Judge("the verifier", lambda run, topics, _: verify(run, topics, task.verifier))


def of_reward(name: str, instruction: str, option: str = "--reward", say: Say = print) -> Judge:
    """A reward model; its grades tell, in the column `truncated`, which texts it read cut.

    Raises UserError for one that is not known, not to be had, or has not one label.
    """
    from irlens.rerank import pairrm, reward
    from irlens.rerank.scoring import conversations, score_in_shards

    chosen = catalog.reward(name)
    if chosen is None:
        raise UserError(f"{option} {name!r}: {', '.join(catalog.REWARDS)}, a hub id owner/name, or a folder")
    folder = catalog.fetch(chosen)
    pairs = chosen.form == "pairrm" or pairrm.is_layout(folder)
    if not pairs:
        reward.check(folder, name)
    made_by = {"kind": "pairrm" if pairs else "reward", "model": digest(folder)}

    def grade(run: pd.DataFrame, topics: pd.DataFrame, shards: Path) -> pd.DataFrame:
        def load():
            quiet_if_small(folder)
            return (pairrm if pairs else reward).load(folder, conversations(topics, instruction))

        asked = conversations(topics, instruction)
        found = score_in_shards(run, load, shards, chosen.name, ROWS, made_by=made_by, asked=asked, say=say)
        if cut := int(found["truncated"].sum()):
            say(cut_in_words(cut, len(found), chosen.name))
        scores = found["score"].to_numpy(dtype=float)
        return run[["query_id", "doc_id"]].assign(relevance=scores, truncated=found["truncated"].to_numpy(dtype=bool))

    return Judge(chosen.name, grade, True, pairs, made_by["model"])


def cut_in_words(cut: int, texts: int, name: str) -> str:
    """That a model that scores did not read all of some texts."""
    return f"{name}: {cut:,} of {texts:,} texts were longer than the model reads, and were cut"


def against_start(
    judge: Judge, run: pd.DataFrame, start: pd.DataFrame, topics: pd.DataFrame, here: Path, before: Path
) -> pd.DataFrame:
    """query_id, temperature, `win rate` (and `reward`, where scores compare across lists): the chance that a policy's draw
    scores above one of the start's at that temperature, a tie being half a win, and its mean score.

    `here`, `before`: folders that keep the scores of `run` and of `start`.
    """
    import pandas as pd

    tables = {}
    if judge.relative:  # both in one list
        runs = {name: r.assign(doc_id=f"{name}/" + r["doc_id"]) for name, r in (("a", run), ("b", start))}
        both = pd.concat(runs.values(), ignore_index=True)
        scores = judge.grade(both.assign(tag=both["temperature"].map("{:g}".format)), topics, here)
        tables = {name: r.merge(scores, on=["query_id", "doc_id"]) for name, r in runs.items()}
    else:
        for name, some, folder in (("a", run, here), ("b", start, before)):
            tables[name] = some.merge(judge.grade(some, topics, folder), on=["query_id", "doc_id"])
    rows = []
    lists = {name: dict(iter(t.groupby(["query_id", "temperature"], sort=False))) for name, t in tables.items()}
    for (query_id, temperature), own in lists["a"].items():
        mine, other = (t["relevance"].to_numpy() for t in (own, lists["b"][query_id, temperature]))
        above = mine[:, None] - other[None, :]
        row = {"query_id": query_id, "temperature": temperature, "win rate": ((above > 0) + 0.5 * (above == 0)).mean()}
        rows.append(row if judge.relative else row | {"reward": mine.mean()})
    return pd.DataFrame(rows)
