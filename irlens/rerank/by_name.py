"""Rerankers by name, made ready for a run: what can be refused is refused before anything is scored or written."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.base import plugins
from irlens.base.errors import UserError, did_you_mean
from irlens.base.files import digest
from irlens.base.options import at_least, positive
from irlens.commands.runs import Source, qrels_of
from irlens.commands.settings import BestOfN, Rerank
from irlens.models import catalog
from irlens.retrieve.options import EngineOptions
from irlens.retrieve.policy import quiet_if_small

if TYPE_CHECKING:
    import numpy as np

    from irlens.rerank.scoring import Scorer


@dataclass(frozen=True)
class Scores:
    """What a reranker gives: a score per row of the run, and of a vote the answers and the weights that elect."""

    scores: np.ndarray
    answers: list | None = None
    weights: np.ndarray | None = None
    facts: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Reranker:
    """A reranker that is ready: `run(shards)` scores, keeping what it computes in that folder."""

    name: str
    run: Callable[[Path], Scores]
    identity: dict = field(default_factory=dict)  # what else than its name makes its scores what they are


def build(name: str, source: Source, settings: Rerank | BestOfN) -> Reranker:
    """The reranker of this name for a run.

    Raises UserError: an unknown name, a model that cannot be had or has not one label, a server that does not answer,
    a run without what the reranker reads.
    """
    at_least(1, batch_size=settings.batch_size, judge_tokens=settings.judge_tokens)
    base, colon, argument = name.partition(":")
    if name in PLAIN:
        return PLAIN[name](name, source, settings)
    if colon and base in WITH_ARGUMENT:
        if not argument:
            raise UserError(f"--reranker {name}: what follows the colon is missing")
        return WITH_ARGUMENT[base](name, argument, source, settings)
    if chosen := catalog.reward(name):
        return _reward(name, chosen, source, settings)
    if plugins.named(name):
        return _own(name, source)
    known = [*PLAIN, *catalog.REWARDS, *(f"{base}:…" for base in WITH_ARGUMENT)]
    raise UserError(
        f"unknown reranker {name!r}; {did_you_mean(name, known)} (or a reward model's hub id or folder, or module:function)"
    )


def slug(name: str) -> str:
    """A name as part of a file name; a path is shortened to its end and a digest."""
    short = re.sub(r"[^\w.+-]+", "-", name.rpartition("/")[2] if "/" in name else name).strip("-")
    return f"{short}-{hashlib.sha256(name.encode()).hexdigest()[:6]}" if "/" in name else short


def _plain(name: str, scores: Callable[[], np.ndarray], **identity) -> Reranker:
    return Reranker(name, lambda _: Scores(scores()), identity)


def _scored(name: str, source: Source, load: Callable[[], Scorer], rows: int, made_by: dict) -> Callable:
    """`run` of a reranker that scores in shards; facts: the sums of what else its scorer counts."""
    from irlens.rerank.scoring import score_in_shards

    def run(shards: Path) -> Scores:
        told = {"made_by": made_by, "asked": source.conversations}
        found = score_in_shards(source.run, load, shards / slug(name), name, rows, **told)
        counted = [c for c in ("truncated", "asked", "nonsense", "comparisons") if c in found.columns]
        facts = {c: int(found[c].sum()) for c in counted} | {"reward_calls": len(found)}
        return Scores(found["score"].to_numpy(), facts=facts)

    return run


# -- without a model -----------------------------------------------------------------------------------------------


def _own(name: str, source: Source) -> Reranker:
    """A function of the run, a table, that gives a score per row."""
    import numpy as np

    function = plugins.function(name, "--reranker")

    def scores() -> np.ndarray:
        try:
            given = np.asarray(function(source.run.copy()), dtype=float)
        except Exception as error:
            raise UserError(f"--reranker {name}: it failed: {type(error).__name__}: {error}") from error
        if given.shape != (len(source.run),):
            raise UserError(f"--reranker {name}: it gave {given.shape} scores for a run of {len(source.run):,} rows")
        return given

    return _plain(name, scores)


def _random(name: str, source: Source, settings) -> Reranker:
    from irlens.rerank.baselines import random_scores

    return _plain(name, lambda: random_scores(source.run, settings.seed_of("random ranking")))


def _length(name: str, source: Source, settings) -> Reranker:
    from irlens.rerank.baselines import length_scores
    from irlens.rerank.scoring import need_texts

    need_texts(source.run, name)
    return _plain(name, lambda: length_scores(source.run))


def _score(name: str, source: Source, settings) -> Reranker:
    column = "reward" if "reward" in source.run.columns else "score"
    return _plain(name, lambda: source.run[column].to_numpy(dtype=float))


def _oracle(name: str, source: Source, settings) -> Reranker:
    from irlens.measure.best_of_n import grades_of

    qrels, called = qrels_of(source, settings.qrels)
    scores = grades_of(source.run, qrels, called)
    return _plain(name, lambda: scores)


def _majority(name: str, source: Source, settings) -> Reranker:
    answers = _answers(source)

    def run(_: Path) -> Scores:
        from irlens.rerank.vote import vote_scores

        return Scores(vote_scores(source.run, answers), answers)

    return Reranker(name, run, {"verifier": source.verifier_name})


def _vote(name: str, argument: str, source: Source, settings) -> Reranker:
    answers, inner = _answers(source), build(argument, source, settings)

    def run(shards: Path) -> Scores:
        from irlens.rerank.vote import vote_scores, vote_weights

        found = inner.run(shards)
        weights = vote_weights(source.run, found.scores)
        return Scores(vote_scores(source.run, answers, weights), answers, weights, found.facts)

    return Reranker(name, run, inner.identity | {"verifier": source.verifier_name})


def _answers(source: Source) -> list:
    from irlens.rerank.vote import answers_of, need_extract

    return answers_of(source.run, need_extract(source.extract, str(source.path)))


# -- with a model --------------------------------------------------------------------------------------------------


def _likelihood(name: str, source: Source, settings) -> Reranker:
    from irlens.rerank.baselines import recorded_likelihood
    from irlens.rerank.scoring import need_texts, score_in_shards

    per_token = name.startswith("mean-")
    recorded = None if settings.policy else recorded_likelihood(source.run, per_token)
    if recorded is not None:
        return _plain(name, lambda: recorded)
    if not (policy := settings.policy or source.policy):
        raise UserError(f"{source.path}: {name}: the run records no log-probabilities; name its model with --policy")
    need_texts(source.run, name)
    chosen = catalog.model(policy)
    folder = catalog.fetch(chosen)
    source.task  # noqa: B018 (refused before anything is loaded)
    made_by = {"kind": "likelihood", "policy": digest(folder)}

    def run(shards: Path) -> Scores:
        found = score_in_shards(
            source.run,
            lambda: _policy_scorer(folder, source, settings),
            shards / "likelihood",
            chosen.name,
            made_by=made_by,
            asked=source.conversations,
        )
        total = found["score"].to_numpy()
        scores = total / found["n_tokens"].to_numpy() if per_token else total
        drawn = {"as_drawn": int(found["as_drawn"].sum())} if "as_drawn" in found.columns else {}
        return Scores(scores, facts={"reward_calls": len(found)} | drawn)

    return Reranker(name, run, {"policy": chosen.name, "policy_digest": made_by["policy"]})


def _policy_scorer(folder: Path, source: Source, settings) -> Scorer:
    from irlens.models import load
    from irlens.models.chat import prompts, token_ids
    from irlens.models.likelihood import Likelihood

    quiet_if_small(folder)
    tokenizer, model = load.tokenizer(folder), load.causal_lm(folder)
    how = source.manifest.get("settings", {}).get("messages_as")  # as they were put when the run was drawn
    asked = prompts(source.task.topics, tokenizer, source.task.instruction, how, folder.name)
    prompt_ids = dict(zip((p.query_id for p in asked), token_ids(tokenizer, asked)))
    return Likelihood(model, tokenizer, prompt_ids, settings.batch_size)


def _reward(name: str, chosen: catalog.Reward, source: Source, settings) -> Reranker:
    from irlens.rerank import pairrm, reward
    from irlens.rerank.scoring import need_texts

    need_texts(source.run, name)
    folder = catalog.fetch(chosen)
    pairs = chosen.form == "pairrm" or pairrm.is_layout(folder)
    if not pairs:
        reward.check(folder, name)
    talks = source.conversations

    def load() -> Scorer:
        quiet_if_small(folder)
        return (pairrm if pairs else reward).load(folder, talks, settings.batch_size)

    identity = {"model_digest": digest(folder)}
    made_by = identity | {"kind": "pairrm" if pairs else "reward"}
    return Reranker(name, _scored(name, source, load, 512, made_by), identity)


def _forced_reward(name: str, argument: str, source: Source, settings) -> Reranker:
    chosen = catalog.reward(argument)
    if chosen is None:
        raise UserError(f"--reranker {name}: {argument!r} is no folder and no hub id owner/name")
    return _reward(name, chosen, source, settings)


def _cross_encoder(name: str, argument: str, source: Source, settings) -> Reranker:
    from irlens.rerank import cross_encoder
    from irlens.rerank.scoring import need_texts

    need_texts(source.run, name)
    chosen = catalog.reward(argument)
    if chosen is None:
        raise UserError(f"--reranker {name}: {argument!r} is no folder and no hub id owner/name")
    folder = catalog.fetch(chosen)
    topics = source.task.topics

    def load() -> Scorer:
        return cross_encoder.scorer(cross_encoder.load(folder), topics, settings.batch_size or 32)

    identity = {"model_digest": digest(folder)}
    made_by = identity | {"kind": "cross-encoder"}
    return Reranker(name, _scored(name, source, load, cross_encoder.PAIRS, made_by), identity)


def _judge(name: str, source: Source, settings) -> Reranker:
    return _judge_of(name, "pairwise", source, settings)


def _judge_of(name: str, mode: str, source: Source, settings) -> Reranker:
    """A judge at a server, its temperature 0; the second try of a question is another request with its own seed."""
    from irlens.rerank.llm_judge import PAIR, POINT, Judge, pairings
    from irlens.rerank.scoring import need_texts
    from irlens.retrieve.engines import openai

    if mode not in ("pairwise", "pointwise"):
        raise UserError(f"--reranker {name}: {did_you_mean(mode, ('pairwise', 'pointwise'))}")
    positive(timeout=settings.timeout)
    at_least(1, concurrency=settings.concurrency)
    pairings([""] * 9999, settings.judge_opponents) if settings.judge_opponents else None
    need_texts(source.run, name)
    if not settings.base_url:
        raise UserError(f"--reranker {name} needs --base-url, such as http://localhost:8000/v1")
    shared = ("base_url", "api_key_env", "concurrency", "timeout", "engine_args")
    options = EngineOptions(
        engine="openai",
        chat=True,
        served_model=settings.served_model,
        **{key: getattr(settings, key) for key in shared},
    )
    options = openai.prepare(options, catalog.served(settings.served_model or "judge"))
    talks = source.conversations

    def load() -> Scorer:
        engine = openai.load(options, None)
        ask = _asker(engine, settings)
        return Judge(ask, talks, mode, settings.judge_opponents, engine.close)

    identity = {"judge": options.served_model, "opponents": settings.judge_opponents, "tokens": settings.judge_tokens}
    made_by = identity | {
        "kind": mode,
        "seed": settings.seed,
        "engine_args": options.engine_args,
        "asked": (PAIR, POINT),
    }
    return Reranker(name, _scored(name, source, load, 256, made_by), identity)


def _asker(engine, settings) -> Callable:
    """Conversations and the number of the try → answers, each conversation a prompt of the engine."""
    from irlens.retrieve.engines import Prompt, Sampling

    def ask(talks: list[list[dict]], number: int) -> list[str]:
        asked = [Prompt(f"question {i}", "", tuple(talk)) for i, talk in enumerate(talks)]
        sampling = Sampling(0.0, settings.seed_of("judging"), settings.judge_tokens)
        return [draw.text for draw in engine.sample(asked, range(number, number + 1), sampling)]

    return ask


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
    "judge": lambda name, mode, source, settings: _judge_of(name, mode, source, settings),
    "reward": _forced_reward,
    "cross-encoder": _cross_encoder,
}
