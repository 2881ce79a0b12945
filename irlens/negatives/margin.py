"""Scores that order candidates or bound them: rewards joined to a run, and how far below the positive one must stay."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from irlens.base.errors import UserError
from irlens.tables import check


@dataclass(frozen=True)
class Bound:
    """The tier `margin`: candidates whose `score` column (reward, logprob) is at most the positive's − `margin`, in the
    score's units; or, with `percentage` p (of 0 … 1), at most p times the positive's, which says something only of
    scores that are not negative. Source: Moreira et al. 2024 (NV-Retriever: TopK-MarginPos, TopK-PercPos).
    """

    score: str = "logprob"
    margin: float = 0.0
    percentage: float | None = None

    def check(self) -> "Bound":
        """Raises UserError for numbers that cannot be meant, and for a percentage of log-probabilities."""
        if not 0 <= self.margin < float("inf"):
            raise UserError(f"--margin {self.margin:g}: must be a number from 0 on")
        if self.percentage is None:
            return self
        if not 0 < self.percentage <= 1:
            raise UserError(f"--percentage {self.percentage:g}: must be above 0 and at most 1, such as 0.95")
        if self.margin:
            raise UserError("--margin and --percentage: give one of them")
        if self.score == "logprob":
            raise UserError(
                "--percentage: log-probabilities are negative, so 95 % of one is the larger number; use --margin in "
                "nats, or give a --reward-run of scores that are not negative"
            )
        return self

    def below(self, candidates: pd.DataFrame, positives: pd.DataFrame) -> np.ndarray:
        """Whether each candidate stays below the bound; of several positives the lowest-scored counts.

        Raises UserError: no such score, one that is not finite, a negative one with a percentage.
        """
        for name, frame in (("candidate", candidates), ("positive", positives)):
            check_finite(frame, self.score, f"tier margin: {name}s")
        lowest = positives.groupby("query_id")[self.score].min()
        if self.percentage is not None and (lowest < 0).any():
            raise UserError(f"--percentage: the positive of {lowest.idxmin()} has a score below 0; use --margin")
        limit = lowest - self.margin if self.percentage is None else lowest * self.percentage
        return candidates[self.score].to_numpy(dtype=float) <= candidates["query_id"].map(limit).to_numpy(dtype=float)


def with_rewards(run: pd.DataFrame, reward: pd.DataFrame | Callable[[str, str], float], source: str) -> pd.DataFrame:
    """`run` with the column reward: from a scored run (`as_rewards`, by query_id and doc_id) or reward(query_id, text).

    Raises UserError, naming `source`: a row that the scored run lacks or whose text there is another one, a reward that
    is not finite.
    """
    if callable(reward):
        values = [float(reward(*pair)) for pair in zip(run["query_id"], run["text"])]
        out = run.assign(reward=values)
        check_finite(out, "reward", source)
        return out
    scored = as_rewards(reward, source).set_index(["query_id", "doc_id"])
    keys = pd.MultiIndex.from_arrays([run["query_id"], run["doc_id"]])
    missing = ~keys.isin(scored.index)
    if missing.any():
        raise UserError(
            f"{source}: no score for {int(missing.sum()):,} of {len(run):,} candidates, the first "
            f"{run['doc_id'].iloc[int(missing.argmax())]}; rerank the run that is mined"
        )
    if "text" in scored.columns:
        other = scored["text"].reindex(keys).to_numpy() != run["text"].to_numpy()
        if other.any():
            raise UserError(
                f"{source}: the text of {run['doc_id'].iloc[int(other.argmax())]} is not the one that is mined (another "
                f"model or seed?); rerank the run that is mined"
            )
    return run.assign(reward=scored["score"].reindex(keys).to_numpy(dtype=float))


def check_rewards(
    rewards: pd.DataFrame, draws: pd.DataFrame | list[tuple[str, str]], positives: Sequence[str], source: str
) -> None:
    """Refuses rewards that miss a draw, or a positive: before anything is drawn, since draws have their identifiers
    beforehand ((query_id, doc_id)), or against the draws themselves. Raises UserError, naming `source`."""
    if not isinstance(draws, pd.DataFrame):
        draws, rewards = (
            pd.DataFrame(draws, columns=["query_id", "doc_id"]),
            rewards.drop(columns="text", errors="ignore"),
        )
    with_rewards(draws, rewards, source)
    there = set(rewards["doc_id"])
    if missing := next((doc_id for doc_id in positives if doc_id not in there), None):
        raise UserError(
            f"{source}: no score for the positive {missing}, which the tier margin needs; score the gold solutions too, or "
            f"use --positives-from own"
        )


def with_logprobs(rows: pd.DataFrame, score: Callable[[pd.DataFrame], pd.DataFrame] | None) -> pd.DataFrame:
    """`rows` with every log-probability: those that sampling did not tell are computed (score: rows → logprob).

    Raises UserError for one that is not known where nothing can compute it: the weights are at a server.
    """
    unknown = rows["logprob"].isna()
    if not unknown.any():
        return rows
    if score is None:
        raise UserError(
            f"{int(unknown.sum()):,} responses have no log-probability, and the server holds the policy's weights: leave "
            f"out the tiers top-ranked and margin, or use another engine"
        )
    out = rows.copy()
    out.loc[unknown, "logprob"] = score(rows[unknown])["logprob"].to_numpy()
    return out


def as_rewards(run: pd.DataFrame, source: str) -> pd.DataFrame:
    """A scored run with `score` = its column reward where it has one: rerankers lower tied scores, and keep them there.

    Raises UserError, naming `source`: no valid run, a reward that is not finite.
    """
    check(run, "run", source)
    if "reward" not in run.columns:
        return run
    check_finite(run, "reward", source)
    return run.assign(score=run["reward"].astype(float)).drop(columns="reward")


def check_finite(frame: pd.DataFrame, score: str, where: str) -> None:
    """Raises UserError, naming `where` and the row, if the column `score` is missing or holds what is not finite."""
    if score not in frame.columns:
        raise UserError(f"{where} have no {score}")
    bad = ~np.isfinite(frame[score].to_numpy(dtype=float))
    if bad.any():
        row = frame.iloc[int(bad.argmax())]
        raise UserError(f"{where}: the {score} of {row['doc_id']} must be a finite number, got {row[score]}")
