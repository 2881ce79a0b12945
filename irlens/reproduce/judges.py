"""What a recipe's judges need, found or refused before anything is trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.base.errors import UserError
from irlens.reproduce import chat, costs
from irlens.reproduce.records import Recipe, Step

if TYPE_CHECKING:
    from irlens.commands.chat import WinRate
    from irlens.commands.exchange import MixEval
    from irlens.commands.settings import Sample


def check(recipe: Recipe, runs: int, say: Callable[[str], None]) -> None:
    """Says who judges and what `runs` of the recipe will ask. Raises UserError, in a line that says what works instead: an
    unknown judge, no server, no template, no baseline, prompts without a baseline's answer, more questions than
    --max-calls without --yes."""
    drawn = {step.name: draws for step, _, draws in chat.of(recipe.steps)}
    seen: set[str] = set()
    for step in recipe.steps:
        if step.stage not in chat.JUDGES:
            continue
        alone = repr(replace(step.settings, **{chat.JUDGES[step.stage]: None}))
        if alone in seen:
            continue
        seen.add(alone)
        try:
            judge = (_winrate if step.stage == "winrate" else _mixeval)(step.settings, drawn.get(step.name))
        except UserError as error:
            raise UserError(f"{step.stage}: {error}") from error
        say(f"{step.stage}: judged by {judge}")
    _confirmed(recipe, runs, say)


def _winrate(settings: WinRate, draws: Sample | None) -> str:
    """The judge's name. draws: how what it judges is drawn; None for outputs that lie somewhere."""
    import pandas as pd

    from irlens import tasks
    from irlens.commands import contests, pair_judges, winrate

    settings = winrate.with_files(winrate.checked(settings))
    if draws is None:
        if settings.outputs and settings.outputs.startswith("@"):
            contest = contests.Contest(pd.DataFrame(columns=["instruction", "output_1", "output_2"]), [], False, {})
        else:
            contest = contests.read(settings, _silent)
    else:
        from irlens.models import catalog

        dataset = draws.dataset or catalog.model(draws.model).dataset
        asked = tasks.load(dataset, draws.split, draws.limit, draws.columns).topics["query"]
        answers = {"instruction": asked.tolist(), "dataset": "", "output": "", "generator": "answers"}
        contest = contests.of_outputs(pd.DataFrame(answers).drop_duplicates("instruction"), False, settings, _silent)
        winrate.controls(settings, contest, _silent)
    return pair_judges.choose(replace(settings, allow_missing=True), contest, _silent).name


def _mixeval(settings: MixEval, draws: Sample | None) -> str:
    from irlens.commands import mixeval
    from irlens.measure import mixeval as scoring
    from irlens.tasks import mixeval as benchmark

    if settings.dataset is None:
        return settings.judge
    version = benchmark.version_of(Path(benchmark.place(settings.dataset)).expanduser())
    for split in scoring.present(version):
        benchmark.read(version, split)
    mixeval.judge_of(settings, version)
    return settings.judge


def _confirmed(recipe: Recipe, runs: int, say: Callable[[str], None]) -> None:
    """Says what is to be asked of servers. Raises UserError if it is more than was agreed to."""
    asking = [step for step in recipe.steps if _asks(step)]
    spent = costs.total([cost for step, cost in zip(recipe.steps, costs.of_steps(recipe.steps)) if _asks(step)] * runs)
    if not spent.asked:
        return
    line = f"{costs.in_words(spent)}, over all arms"
    most = max(step.settings.max_calls for step in asking)
    if spent.asked > most and not any(step.settings.yes for step in asking):
        raise UserError(f"{line}: more than --max-calls {most:,}; --yes asks them")
    say(line)


def _asks(step: Step) -> bool:
    return step.stage in chat.JUDGES


def _silent(line: str) -> None:
    """Says nothing: the step itself will."""
