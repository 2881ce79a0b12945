"""A judge at a server is asked: counted before the first question, refused above a limit, kept as it answers."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from irlens.base.checksums import ANSWERS
from irlens.base.errors import UserError
from irlens.base.progress import progress_bar
from irlens.retrieve.policy import Say

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from irlens.rerank.questions import Questions, Said
    from irlens.retrieve.options import EngineOptions


JUDGES = ("own", "authors")  # of a benchmark: our wording, or its authors'


class Limits(Protocol):
    """Settings that say how much may be asked."""

    @property
    def max_calls(self) -> int: ...
    @property
    def yes(self) -> bool: ...
    @property
    def price(self) -> tuple[float, ...] | None: ...


def check(settings: Limits) -> None:
    """Raises UserError for numbers out of range."""
    from irlens.base.options import at_least

    at_least(0, max_calls=settings.max_calls)
    if settings.price is not None and (len(settings.price) != 2 or not all(0 <= p < 1e9 for p in settings.price)):
        raise UserError("--price: two numbers from 0 on, dollars for a million tokens read, and written: 10,30")


class Benchmark(Limits, Protocol):
    """Settings of a benchmark whose answers a judge is asked about."""

    @property
    def systems(self) -> list[str] | None: ...
    @property
    def judge(self) -> str | None: ...
    @property
    def judge_tokens(self) -> int | None: ...
    @property
    def judge_temperature(self) -> float | None: ...


def check_benchmark(settings: Benchmark, wanted: str, words: str | None, told: str) -> None:
    """Raises UserError: nothing named (`wanted`: what could be), an unknown judge, numbers out of range, the authors' judge
    without their words (`told`: what has them)."""
    from irlens.base.options import at_least, one_of
    from irlens.commands.settings import heat

    if not settings.systems:
        raise UserError(wanted)
    one_of(JUDGES, judge=settings.judge)
    at_least(1, judge_tokens=settings.judge_tokens)
    check(settings)
    if settings.judge_temperature is not None:
        heat(judge_temperature=settings.judge_temperature)
    if settings.judge == "authors" and not words:
        raise UserError(f"--judge authors: its words are its authors': name {told}")


def ask(
    asked: Questions, served: EngineOptions, settings: Limits, say: Say, out: Path
) -> tuple[Mapping[str, Said], dict]:
    """(key → what was said, facts for the manifest): asks what the journal and the store do not know.

    Raises UserError: more questions than --max-calls without --yes; see `Questions.ask`.
    """
    from irlens.rerank import stored_answers
    from irlens.rerank.judge_server import JudgeServer
    from irlens.rerank.questions import REFUSED, Journal
    from irlens.retrieve.engines import http

    journal = Journal(out / ANSWERS)
    if journal.damaged:
        say(f"{journal.path}: {journal.damaged:,} answers cannot be read: asked again")
    found = stored_answers.fetch(asked, journal)
    todo = asked.todo(key for key, said in journal.said.items() if said.final)
    cost = asked.cost(todo, settings.price)
    kept = len(asked.questions) - len(todo)
    say(cost.in_words() + (f"; {kept:,} are answered already" if kept else ""))
    if len(todo) > settings.max_calls and not settings.yes:
        raise UserError(f"{cost.in_words()}: more than --max-calls {settings.max_calls:,}; --yes asks them")
    if todo:
        key = http.key_of(served.api_key_env, served.base_url)
        told = {"key": key, "concurrency": served.concurrency, "timeout": served.timeout}
        with JudgeServer((served.base_url or "").split(","), asked.model, **told) as server, progress_bar() as progress:
            bar = progress.add_task(f"judging by {asked.model}", total=len(todo), rate="")
            asked.ask(todo, server.ask, journal, lambda: progress.update(bar, advance=1))
        stored_answers.keep(asked, journal, out / stored_answers.NAME)
    said = [journal.said[key] for key in asked.questions]
    facts = {"calls": len(todo), "answers_found": found, "refused": sum(one.reason.startswith(REFUSED) for one in said)}
    return journal.said, facts


def refuse_missing(missing: Mapping[str, int], first: str, allowed: bool, say: Say) -> None:
    """Says how many questions each system lacks. Raises UserError for it, unless it is allowed. first: one of them."""
    if not missing:
        return
    told = "; ".join(f"{name}: {count:,}" for name, count in list(missing.items())[:8])
    told += "; …" if len(missing) > 8 else ""
    if not allowed:
        raise UserError(
            f"questions are missing: {told} (the first: {first}); --allow-missing measures over those there"
        )
    say(f"questions are missing: {told}; each system is measured over those it has")


def content(frame: pd.DataFrame | None) -> str | None:
    """A digest of a table's texts and numbers: what a result depends on."""
    if frame is None:
        return None
    sha = hashlib.sha256(repr(list(frame.columns)).encode())
    for row in frame.itertuples(index=False, name=None):
        sha.update(repr(row).encode("utf-8", "backslashreplace"))
    return sha.hexdigest()[:16]
