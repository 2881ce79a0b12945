"""Who judges the pairs of a win rate: stored annotations, a judge at a server, or a reranker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.base.errors import UserError
from irlens.commands import asking, contests
from irlens.commands.contests import Contest
from irlens.rerank import pair_protocols
from irlens.rerank.options import ScoringOptions
from irlens.retrieve.policy import Say

if TYPE_CHECKING:
    import pandas as pd

    from irlens.commands.chat import WinRate
    from irlens.rerank.reranker import Scoring

STORED = "stored"


@dataclass(frozen=True)
class Judge:
    """`judged(pairs, folder)` → the pairs with their preferences, and facts for the manifest. identity: what these depend
    on."""

    name: str
    judged: Callable[[pd.DataFrame, Path], tuple[pd.DataFrame, dict]]
    identity: dict = field(default_factory=dict)


def choose(settings: WinRate, contest: Contest, say: Say) -> Judge:
    """The judge that was asked for, everything that can be refused refused. Raises UserError: an unknown one, no server,
    annotations that lack a pair."""
    name = settings.judge
    if name in (None, STORED):
        if not contest.judged:
            raise UserError(
                f"{settings.outputs}: holds no preferences; give --judge, such as {pair_protocols.OWN} or a reward model"
            )
        if settings.repeats:
            raise UserError("--repeats: a judge at a server is asked again, and stored preferences are as they are")
        return Judge(STORED, lambda pairs, _: (pairs, {}))
    if name in pair_protocols.NAMES:
        return _at_server(settings, contest, say)
    if settings.repeats:
        raise UserError(f"--repeats: a judge at a server is asked again; {name} would say the same")
    if Path(name).expanduser().is_file():
        return _of_file(settings, contest, say)
    return _reranker(settings, say)


def check(name: str | None) -> None:
    """Raises UserError for a judge that is none by its name, before anything else is looked at."""
    from irlens.rerank import judge_names

    if name not in (None, STORED):
        judge_names.check(name)


# -- stored --------------------------------------------------------------------------------------------------------


def _of_file(settings: WinRate, contest: Contest, say: Say) -> Judge:
    """Annotations of a file, joined by instruction and both answers."""
    from irlens.measure import leaderboard

    path = settings.judge or ""
    found, judged = contests.outputs_of(path, settings, say)
    if not judged:
        raise UserError(f"--judge {path}: holds no annotations (instruction, output_1, output_2, preference)")
    keys = ["instruction", "output_1", "output_2"]
    leaderboard.checked(found)
    known = found.drop_duplicates(keys, keep="last").set_index(keys)
    at = list(map(tuple, contest.pairs[keys].itertuples(index=False)))
    lacking = [key for key in at if key not in known.index]
    if lacking and not settings.allow_missing:
        raise UserError(
            f"--judge {path}: has no preference for {len(lacking):,} of {len(at):,} pairs, the first: {lacking[0][0]!r:.60}; "
            f"--allow-missing leaves them out"
        )
    told = known["preference"].to_dict()
    values = [told.get(key, float("nan")) for key in at]
    names = list(dict.fromkeys(found["annotator"]))
    return Judge(
        names[0] if len(names) == 1 else Path(path).stem, lambda pairs, _: (pairs.assign(preference=values), {})
    )


# -- at a server ---------------------------------------------------------------------------------------------------


def _at_server(settings: WinRate, contest: Contest, say: Say) -> Judge:
    """A protocol by name, its server reached."""
    from irlens.base.options import parse_json
    from irlens.rerank.judge_server import reached
    from irlens.rerank.judgements import Plan

    template = Path(settings.template).expanduser() if settings.template else None
    protocol = pair_protocols.protocol(settings.judge or "", template, settings.judge_tokens)
    served = reached(settings, f"--judge {protocol.name}", protocol.model)
    model = served.served_model or ""
    more = parse_json(settings.engine_args, "--engine-args")
    plan = Plan(contest.pairs, protocol, model, settings.both_orders, more, repeats=settings.repeats or 1)
    name = protocol.name if model == protocol.model else f"{protocol.name} ({model})"
    name += ", both orders" if settings.both_orders else ""
    name += f", {settings.repeats} times" if settings.repeats else ""
    about = protocol.identity | {"model": model, "both_orders": settings.both_orders, "more": more}

    def judged(pairs: pd.DataFrame, out: Path) -> tuple[pd.DataFrame, dict]:
        said, facts = asking.ask(plan, served, settings, say, out)
        found = plan.judged(said, settings.price)
        tokens = {name: int(found[name].sum()) for name in ("prompt_tokens", "completion_tokens")}
        return found, facts | tokens

    return Judge(name, judged, about)


# -- by a reranker -------------------------------------------------------------------------------------------------


def _reranker(settings: WinRate, say: Say) -> Judge:
    """A reward model or another reranker: the answer with the higher score wins."""
    from irlens.base import devices
    from irlens.rerank import judge_names
    from irlens.rerank.given import Given

    name = settings.judge or ""
    options = ScoringOptions(**{f.name: getattr(settings, f.name) for f in fields(ScoringOptions)})
    given = Given(
        options=options, seed=settings.seed, where=settings.outputs or "", devices=devices.choose(settings.devices)
    )
    scoring = judge_names.scoring(name, given)
    return Judge(name, partial(_scored, scoring, say), scoring.identity)


def _scored(scoring: Scoring, say: Say, pairs: pd.DataFrame, out: Path) -> tuple[pd.DataFrame, dict]:
    from irlens.rerank import judgements
    from irlens.rerank.questions import REFUSED

    found = judgements.by_scores(pairs, scoring.using(folder=out / "scores"))
    refused = int(found["reason"].str.startswith(REFUSED).sum())
    return found, {"reward_calls": len(judgements.run_of(pairs, scoring.relative)[0]), "refused": refused}
