"""Rerankers by name: what `irlens.reranker` and every command take, looked up and ready to be called."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Mapping
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irlens.base import devices, plugins
from irlens.base.errors import UserError, did_you_mean
from irlens.base.files import digest
from irlens.base.options import at_least
from irlens.base.secrets import without_text
from irlens.base.untrusted import file_name
from irlens.models import catalog
from irlens.rerank.given import Given
from irlens.rerank.options import ScoringOptions
from irlens.rerank.reranker import Prepared, Scores, Scoring, as_scoring, of_function
from irlens.rerank.reward_files import reward_model
from irlens.retrieve.policy import quiet_if_small

if TYPE_CHECKING:
    import os

    import numpy as np
    import pandas as pd

    from irlens.rerank.scoring import Scorer
    from irlens.tasks.contract import Task


def reranker(
    name: str | os.PathLike | Callable,
    task: Task | None = None,
    *,
    qrels: pd.DataFrame | None = None,
    folder: str | os.PathLike | None = None,
    seed: int = 0,
    **options: Any,
) -> Scoring:
    """A reranker: called with a run it gives the same rows in a new order, its own number as `reward`.

    name: majority, likelihood, mean-likelihood, length, random, oracle, score, fsfairx, pairrm, reward:MODEL,
    cross-encoder:MODEL, judge, judge:pointwise, judge:MODEL, vote:RERANKER, a folder or hub id of a reward model,
    module:function, or a function of a run that gives a score per row or a run. task: the run's prompts and how answers are read; without it
    the run's own column `query` is what was asked. qrels: for the oracle. folder: where a model's scores are kept, so
    that none is computed twice. options: fields of `ScoringOptions`, such as policy, verifier, thought, batch_size,
    base_url. Raises UserError: an unknown name or option, a model that cannot be had.
    """
    from irlens.models import thoughts

    if callable(name):
        return as_scoring(name)
    known = {f.name for f in fields(ScoringOptions)}
    for key in options:
        if key not in known:
            raise UserError(f"reranker: unknown option {key!r}; {did_you_mean(key, known)}")
    chosen = ScoringOptions(**options)
    thought = thoughts.parse(chosen.thought)
    more = {
        "folder": Path(folder) if folder else None,
        "devices": devices.choose(chosen.devices) if chosen.devices else devices.HERE,
    }
    return build(str(name), Given(task, qrels, thought, chosen, seed=seed, **more))


def build(name: str, given: Given) -> Scoring:
    """The reranker of this name. Raises UserError: an unknown name, a model that cannot be had or has not one label, a
    server that does not answer."""
    at_least(1, batch_size=given.options.batch_size, judge_tokens=given.options.judge_tokens)
    base, colon, argument = name.partition(":")
    if name in PLAIN:
        return PLAIN[name](name, given)
    if colon and base in WITH_ARGUMENT:
        if not argument:
            raise UserError(f"--reranker {name}: what follows the colon is missing")
        return WITH_ARGUMENT[base](name, argument, given)
    if chosen := catalog.reward(name):
        return _reward(name, chosen, given)
    if plugins.named(name):
        return of_function(plugins.function(name, "--reranker"), name)
    raise _unknown(name)


def check(name: str) -> None:
    """Raises UserError for a name of no reranker. Nothing is loaded."""
    base, colon, _ = name.partition(":")
    if not (name in PLAIN or (colon and base in WITH_ARGUMENT) or catalog.reward(name) or plugins.named(name)):
        raise _unknown(name)


def _unknown(name: str) -> UserError:
    known = [*PLAIN, *catalog.REWARDS, *(f"{base}:…" for base in WITH_ARGUMENT)]
    return UserError(
        f"unknown reranker {name!r}; {did_you_mean(name, known)} (or a reward model's hub id or folder, or module:function)"
    )


def slug(name: str) -> str:
    """A name as part of a file name; a path is shortened to its end and a digest."""
    short = file_name(name.rpartition("/")[2] if "/" in name else name)
    return f"{short}-{hashlib.sha256(name.encode()).hexdigest()[:6]}" if "/" in name else short


# -- without a model -----------------------------------------------------------------------------------------------


def _random(name: str, given: Given) -> Scoring:
    from irlens.rerank.baselines import random_scores

    return _plain(name, given, lambda run, given: random_scores(run, given.seed_of("random ranking")))


def _length(name: str, given: Given) -> Scoring:
    from irlens.rerank.baselines import length_scores

    return _plain(name, given, lambda run, _: length_scores(run), texts=True)


def _score(name: str, given: Given) -> Scoring:
    def own(run: pd.DataFrame, _: Given) -> np.ndarray:
        return run["reward" if "reward" in run.columns else "score"].to_numpy(dtype=float)

    return _plain(name, given, own)


def _oracle(name: str, given: Given) -> Scoring:
    def prepare(run: pd.DataFrame, given: Given) -> Prepared:
        from irlens.rerank.scoring import grades_of

        grades = grades_of(run, given.judgements(), f"the qrels of {given.where}")
        return Prepared(lambda: Scores(grades))

    return Scoring(name, prepare, given)


def _plain(
    name: str, given: Given, scores: Callable[[pd.DataFrame, Given], np.ndarray], texts: bool = False
) -> Scoring:
    def prepare(run: pd.DataFrame, given: Given) -> Prepared:
        from irlens.rerank.scoring import need_texts

        if texts:
            need_texts(run, name)
        return Prepared(lambda: Scores(scores(run, given)))

    return Scoring(name, prepare, given)


# -- by vote -------------------------------------------------------------------------------------------------------


def _majority(name: str, given: Given) -> Scoring:
    def prepare(run: pd.DataFrame, given: Given) -> Prepared:
        from irlens.rerank.vote import vote_scores

        answers = _answers(run, given)
        return Prepared(lambda: Scores(vote_scores(run, answers), answers), {"verifier": given.options.verifier})

    return Scoring(name, prepare, given)


def _vote(name: str, argument: str, given: Given) -> Scoring:
    inner = build(argument, given)

    def prepare(run: pd.DataFrame, given: Given) -> Prepared:
        from irlens.rerank.vote import vote_scores, vote_weights

        answers, ready = _answers(run, given), inner.prepare(run, given)

        def score() -> Scores:
            found = ready.score()
            weights = vote_weights(run, found.scores)
            return replace(found, scores=vote_scores(run, answers, weights), answers=answers, weights=weights)

        return Prepared(score, ready.identity | {"verifier": given.options.verifier})

    return Scoring(name, prepare, given, identity=inner.identity)


def _answers(run: pd.DataFrame, given: Given) -> list[int | None]:
    """[rows] the number of each different answer, which is quicker to count than a fraction; None without one."""
    from irlens.rerank.vote import answers_of, need_extract

    number: dict[Hashable, int] = {}
    answers = answers_of(run, need_extract(given.extract(run), given.where))
    return [None if answer is None else number.setdefault(answer, len(number)) for answer in answers]


# -- with a model --------------------------------------------------------------------------------------------------


def _scored(
    name: str,
    given: Given,
    loader: Callable[[pd.DataFrame, Given], Callable[[], Scorer]],
    made_by: Mapping,
    rows: int,
    identity: dict,
    stored: str | None = None,
) -> Scoring:
    """A reranker whose scorer works shard by shard; facts: the sums of what else it counts. stored: see
    `scoring.MadeBy`."""

    def prepare(run: pd.DataFrame, given: Given) -> Prepared:
        from irlens.rerank.scoring import REFUSED, MadeBy, need_texts, score_in_shards

        need_texts(run, name)
        asked = given.conversations(run)

        def score() -> Scores:
            shards = given.folder and given.folder / slug(name)
            told = MadeBy(made_by, asked, stored)
            found = score_in_shards(run, loader(run, given), shards, name, told, rows, devices=given.devices)
            counted = [c for c in ("truncated", "asked", "nonsense", "comparisons") if c in found.columns]
            facts = {c: int(found[c].sum()) for c in counted} | {"reward_calls": len(found)}
            cut = found["truncated"].to_numpy(dtype=bool) if "truncated" in found.columns else None
            refused = found[REFUSED].fillna("").to_numpy(dtype=object) if REFUSED in found.columns else None
            facts |= {} if refused is None else {REFUSED: int((refused != "").sum())}
            return Scores(found["score"].to_numpy(), facts=facts, truncated=cut, refused=refused)

        return Prepared(score, identity)

    return Scoring(name, prepare, given, identity=identity)


def _likelihood(name: str, given: Given) -> Scoring:
    per_token = name.startswith("mean-")

    def prepare(run: pd.DataFrame, given: Given) -> Prepared:
        from irlens.rerank.baselines import recorded_likelihood

        recorded = None if given.options.policy else recorded_likelihood(run, per_token)
        return _computed(name, run, given, per_token) if recorded is None else Prepared(lambda: Scores(recorded))

    return Scoring(name, prepare, given)


def _computed(name: str, run: pd.DataFrame, given: Given, per_token: bool) -> Prepared:
    """The likelihood under a policy's own weights, nats, computed anew."""
    from irlens.rerank.scoring import ALONE, MadeBy, need_texts, score_in_shards

    if not (policy := given.options.policy or given.policy):
        raise UserError(f"{given.where}: {name}: the run records no log-probabilities; name its model with --policy")
    need_texts(run, name)
    chosen = catalog.model(policy)
    files = catalog.fetch(chosen)
    asked = given.conversations(run)  # refused before anything is loaded
    made_by = {"kind": "likelihood", "policy": digest(files)}

    def score() -> Scores:
        shards = given.folder and given.folder / "likelihood"
        told = MadeBy(made_by, asked, None if given.messages_as else ALONE)
        task, batch = given.task_of(run), given.options.batch_size
        load = partial(_policy_scorer, files, task.topics, task.instruction, given.messages_as, batch)
        found = score_in_shards(run, load, shards, chosen.name, told, devices=given.devices)
        total = found["score"].to_numpy()
        scores = total / found["n_tokens"].to_numpy() if per_token else total
        drawn = {"as_drawn": int(found["as_drawn"].sum())} if "as_drawn" in found.columns else {}
        return Scores(scores, facts={"reward_calls": len(found)} | drawn)

    return Prepared(score, {"policy": chosen.name, "policy_digest": made_by["policy"]})


def _policy_scorer(
    folder: Path, topics: pd.DataFrame, instruction: str, messages_as: str | None, batch: int | None
) -> Scorer:
    from irlens.models import load
    from irlens.models.chat import prompts, token_ids
    from irlens.models.likelihood import Likelihood

    quiet_if_small(folder)
    tokenizer, model = load.tokenizer(folder), load.causal_lm(folder)
    asked = prompts(topics, tokenizer, instruction, messages_as, folder.name)
    prompt_ids = dict(zip((p.query_id for p in asked), token_ids(tokenizer, asked)))
    return Likelihood(model, tokenizer, prompt_ids, batch)


def _reward(name: str, chosen: catalog.Reward, given: Given) -> Scoring:
    from irlens.rerank.scoring import ALONE, TOGETHER

    found = reward_model(chosen, name)

    def loader(run: pd.DataFrame, given: Given) -> Callable[[], Scorer]:
        return partial(found.load, given.conversations(run), given.options.batch_size)

    stored = TOGETHER if found.pairs else ALONE
    made = _scored(name, given, loader, found.made_by, 512, {"model_digest": found.digest}, stored)
    return replace(made, relative=found.pairs)


def _forced_reward(name: str, argument: str, given: Given) -> Scoring:
    return _reward(name, _folder_or_hub_id(name, argument), given)


def _folder_or_hub_id(name: str, argument: str) -> catalog.Reward:
    if (chosen := catalog.reward(argument)) is None:
        raise UserError(f"--reranker {name}: {argument!r} is no folder and no hub id owner/name")
    return chosen


def _cross_encoder(name: str, argument: str, given: Given) -> Scoring:
    from irlens.rerank import cross_encoder
    from irlens.rerank.scoring import ALONE

    folder = catalog.fetch(_folder_or_hub_id(name, argument))

    def loader(run: pd.DataFrame, given: Given) -> Callable[[], Scorer]:
        return partial(cross_encoder.opened, folder, given.task_of(run).topics, given.options.batch_size or 32)

    identity = {"model_digest": digest(folder)}
    made_by = identity | {"kind": "cross-encoder"}
    return _scored(name, given, loader, made_by, cross_encoder.PAIRS, identity, ALONE)


# -- by a language model -------------------------------------------------------------------------------


def _judge(name: str, given: Given) -> Scoring:
    return _judge_of(name, "pairwise", given)


def _judge_of(name: str, argument: str, given: Given) -> Scoring:
    """A judge at a server, or of this machine where a model is named and no server."""
    from irlens.rerank import local_judge

    mode, model = local_judge.parsed(name, argument)
    if model and not given.options.base_url:
        return _judge_here(name, mode, model, given)
    return _judge_served(name, mode, replace(given, options=_names_model(given.options, model)))


def _names_model(options: ScoringOptions, model: str | None) -> ScoringOptions:
    return options if model is None else replace(options, served_model=options.served_model or model)


def _judge_here(name: str, mode: str, model: str, given: Given) -> Scoring:
    """A judge whose engine is in this process, or spread over the devices."""
    from irlens.rerank.llm_judge import PAIR, POINT
    from irlens.rerank.local_judge import LocalJudge

    _check_opponents(given.options)
    judge = LocalJudge(model, given.options, given.devices)
    given = replace(given, devices=devices.HERE)  # its engine spreads itself

    def loader(run: pd.DataFrame, given: Given) -> Callable[[], Scorer]:
        return partial(judge.load, given.conversations(run), mode)

    identity = judge.identity | {"opponents": given.options.judge_opponents}
    how = {"kind": mode, "asked": (PAIR, POINT)}
    return replace(_scored(name, given, loader, identity | how, 256, identity), relative=mode == "pairwise")


def _judge_served(name: str, mode: str, given: Given) -> Scoring:
    """A judge at a server, every answer kept where the scores are."""
    from irlens.rerank.llm_judge import PAIR, POINT
    from irlens.rerank.served_judge import ServedJudge

    _check_opponents(given.options)
    judge = ServedJudge(name, given.options, given.seed_of("judging"))
    given = replace(given, devices=devices.HERE)  # it is a server that works

    def loader(run: pd.DataFrame, given: Given) -> Callable[[], Scorer]:
        folder = given.folder and given.folder / slug(name)
        return partial(judge.load, given.conversations(run), mode, folder)

    identity = {"judge": judge.model, "opponents": given.options.judge_opponents, "tokens": given.options.judge_tokens}
    told = without_text(given.options.engine_args)
    how = {"kind": mode, "seed": given.seed, "engine_args": told, "asked": (PAIR, POINT)}
    return replace(_scored(name, given, loader, identity | how, 256, identity), relative=mode == "pairwise")


def _check_opponents(options: ScoringOptions) -> None:
    from irlens.rerank.llm_judge import pairings

    if options.judge_opponents:
        pairings([""] * 9999, options.judge_opponents)  # refuses an odd number


PLAIN = {
    "majority": _majority,
    "likelihood": _likelihood,
    "mean-likelihood": _likelihood,
    "length": _length,
    "random": _random,
    "oracle": _oracle,
    "score": _score,
    "judge": _judge,
}
WITH_ARGUMENT = {
    "vote": _vote,
    "judge": _judge_of,
    "reward": _forced_reward,
    "cross-encoder": _cross_encoder,
}
