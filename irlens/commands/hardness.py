"""How hard mined negatives are, and at which temperatures draws make lists: tables, figures, and the policy's scores."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.base import files
from irlens.base.files import digest
from irlens.commands.evaluate import judgements_of, own_folder
from irlens.commands.folder import OutputFolder
from irlens.retrieve.policy import Policy, Say

if TYPE_CHECKING:
    import pandas as pd

    from irlens.models.likelihood import Likelihood
    from irlens.negatives.mine import Mined
    from irlens.negatives.neighbours import Embed
    from irlens.tasks.contract import Task

Scorer = Callable[["Task", "pd.DataFrame", str], "pd.DataFrame"]  # task, responses, what they are → logprob, n_tokens

PANELS = {
    "logprob_gap": "log π(y|x) less the positive's (nats)",
    "logprob_per_token_gap": "the same per token (nats)",
    "reward_gap": "reward less the positive's",
    "word_similarity": "similarity to the positive (words)",
    "embedding_similarity": "similarity to the positive (cosine)",
    "answer_distance": "|answer − gold|, median",
    "unparsable": "share without an answer",
    "tokens": "length (tokens)",
    "distinct_answers": "distinct answers per prompt",
    "self_bleu": "self-BLEU per prompt",
    "without": "share of prompts without one",
}


def policy_scorer(policy: Policy, out: Path) -> Scorer | None:
    """Scores responses (by the ids drawn, where they are known) under the policy's own weights, a shard at a time into
    `out`/scores; None where a server holds them."""
    if policy.options.engine == "openai" or policy.folder is None:
        return None

    @functools.cache
    def made_by() -> dict:
        return {"kind": "likelihood", "policy": digest(policy.folder)}

    def score(task: Task, rows: pd.DataFrame, what: str) -> pd.DataFrame:
        from irlens.rerank.scoring import ALONE, MadeBy, score_in_shards

        asked = {prompt.query_id: prompt.text for prompt in policy.prompts(task)}
        told = MadeBy(made_by(), asked, ALONE)
        load = functools.partial(_likelihood, policy.folder, policy.prompt_ids(task))
        shards, name = out / "scores" / what, f"likelihood of the {what}"
        found = score_in_shards(rows, load, shards, name, told, devices=policy.devices)
        return found.rename(columns={"score": "logprob"})

    return score


def _likelihood(folder: Path, prompt_ids: dict[str, list[int]]) -> Likelihood:
    from irlens.models import load
    from irlens.models.likelihood import Likelihood

    return Likelihood(load.causal_lm(folder), load.tokenizer(folder), prompt_ids)


def write_hardness(
    mined: Mined, own: pd.DataFrame, task: Task, tiers: list[str], scorer: Scorer | None, embed: Embed | None,
    out: Path, say: Say,
) -> pd.DataFrame:  # fmt: skip
    """Writes hardness.csv and the figure tiers.{png,pdf,csv}; returns the table (`hardness.hardness`)."""
    from irlens.measure import stats
    from irlens.negatives.hardness import hardness

    lists = mined.lists
    if scorer is None:
        say("no log-probabilities in the hardness report: the policy's weights are at a server")
    else:
        scored = scorer(task, lists, "lists")
        lists = lists.assign(logprob=scored["logprob"].to_numpy(), n_tokens=scored["n_tokens"].to_numpy())
    if "reward" in own.columns:
        known = own.drop_duplicates(["query_id", "doc_id"]).set_index(["query_id", "doc_id"])["reward"]
        lists = lists.assign(reward=[known.get(pair, float("nan")) for pair in zip(lists["query_id"], lists["doc_id"])])
    has = "answers" in task.topics.columns
    answers = {q: list(some) for q, some in zip(task.topics["query_id"], task.topics["answers"])} if has else None
    table = hardness(lists, tiers, len(task.topics), stats, answers=answers, extract=task.extract, embed=embed)
    files.write_csv(table, out / "hardness.csv")
    plot_hardness(table, out / "tiers", f"Negatives by tier of hardness ({task.name}, {len(task.topics):,} prompts)")
    return table


def plot_hardness(table: pd.DataFrame, path: Path, title: str) -> list[Path]:
    """A panel per measure, a row per tier."""
    from irlens.measure.plots import dots

    shown = table[table["measure"].isin(PANELS) & (table["tier"] != "positive")]
    order = {measure: i for i, measure in enumerate(PANELS)}
    shown = shown.assign(group=shown["measure"].map(PANELS), bar=shown["tier"], order=shown["measure"].map(order))
    tiers = {tier: i for i, tier in enumerate(dict.fromkeys(table["tier"]))}
    shown = shown.assign(place=shown["tier"].map(tiers)).sort_values(["order", "place"], kind="stable")
    return dots.dots(shown[["group", "bar", "value", "low", "high", "n"]], path, title=title)


# -- temperatures --------------------------------------------------------------------------------------------------


def write_temperatures(run: pd.DataFrame, qrels: pd.DataFrame, out: Path, say: Say) -> pd.DataFrame:
    """Writes temperatures.csv and says what it means; returns the table."""
    from irlens.measure.stats import mean_intervals
    from irlens.negatives.temperatures import in_words, usable_temperatures

    table = usable_temperatures(run, qrels, mean_intervals)
    files.write_csv(table, out / "temperatures.csv")
    for sentence in in_words(table):
        say(sentence)
    return table


def temperatures(
    run: Path, qrels: Path, least: float = 0.5, out: str | None = None
) -> tuple[Path, pd.DataFrame, list[str]]:
    """The folder, the shares per temperature and the sentences of a run drawn at several temperatures (Figure 3b).

    The folder holds temperatures.csv, usable.{png,pdf,csv} and the manifest. Raises UserError for a run without
    temperatures, draws that are not judged, a share outside 0 … 1.
    """
    from irlens import tables
    from irlens.measure.plots import curves as plots
    from irlens.measure.stats import mean_intervals
    from irlens.negatives.temperatures import in_words, usable_temperatures

    found, judged = tables.read_run(run), tables.read_qrels(qrels)
    table = usable_temperatures(found, judgements_of(found, judged), mean_intervals)
    sentences = in_words(table, least)
    kept = {"run": str(run), "qrels": str(qrels), "least": least, "rows": len(found), "judgements": len(judged)}
    folder = Path(out) if out else own_folder("temperatures", run, kept)
    with OutputFolder(folder, "temperatures", kept):
        files.write_csv(table, folder / "temperatures.csv")
        drawn = table.assign(curve=table["measure"].map(CURVES), x=table["temperature"])
        labels = {"x_label": "temperature", "y_label": "share of prompts, or of draws"}
        title = f"Lists from {table['draws'].max():.0f} draws per prompt, by temperature"
        plots.curves(drawn[["curve", "x", "value", "low", "high", "n"]], folder / "usable", title=title, **labels)
    return folder, table, sentences


CURVES = {
    "usable": "usable: right and wrong",
    "all right": "all right",
    "all wrong": "all wrong",
    "distinct": "distinct per draw",
}
