"""Chat evaluation in a recipe: the start and every trained policy answer the same prompts, and a judge says how well.

A recipe's `[[chat.PRESET]]` has `answers` (how a policy is drawn from: settings of `irlens sample`) and what judges them,
`winrate` or `mixeval` (settings of that command). Each becomes a step per policy, `answers ARM` and `winrate ARM`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from irlens.base.errors import UserError, did_you_mean
from irlens.base.options import settings_from
from irlens.commands import pair_judges, renamed
from irlens.commands.settings import Sample
from irlens.reproduce.records import STAGES, Done, Recipe, Step

if TYPE_CHECKING:
    import pandas as pd

JUDGES = {"winrate": "outputs", "mixeval": "runs"}  # stage → its setting that names what is judged
DRAWS = {"winrate": "answers", "mixeval": "mixeval-answers"}  # stage → what the steps are called that draw for it
MEASURES = {
    "LCWinRate": "LC win rate",
    "WinRate": "win rate",
    "MixEval": "MixEval",
    "MixEval-Hard": "MixEval-Hard",
}  # → in words
OF_STAGE = {"winrate": ("LCWinRate", "WinRate"), "mixeval": ("MixEval", "MixEval-Hard")}
MIXEVAL = "mixeval"  # a data set whose folder the user names
START = "start"
OF_SERVERS = ("base_url", "api_key_env", "price")  # what is said of judges of any kind


# -- steps ---------------------------------------------------------------------------------------------------------


def steps(before: Sequence[Step], entries: Sequence[dict], mixeval: str | None, where: str) -> list[Step]:
    """The steps that a preset's `chat` asks for, the start first. mixeval: the folder of MixEval; without one what needs
    it is left out. Raises UserError: nothing trains, an entry without a judge, several draws per prompt."""
    arms = {step.name: step.settings for step in before if step.stage == "train"}
    if not arms:
        raise UserError(f"{where}: no stage trains, so there is nothing to judge")
    start, made = next(iter(arms.values())).model, []
    for number, entry in enumerate(entries, 1):
        here = f"{where}, entry {number}"
        stage, drawn, judged = _parts(entry, here)
        if drawn.get("dataset") == MIXEVAL:
            if mixeval is None:
                continue
            drawn = drawn | {"dataset": mixeval}
            judged = {"dataset": mixeval} | judged
        draws = settings_from(Sample, {"model": start, "n": 1} | drawn, f"{here}: answers")
        if draws.n != 1 or len(draws.temperature) != 1:
            raise UserError(f"{here}: answers: one draw per prompt is judged, at one temperature")
        for arm in (START, *arms):
            name = f"{DRAWS[stage]} {arm}"
            made.append(Step("sample", name, replace(draws, model=start if arm == START else f"@{arm}")))
            what = f"@{name}" if stage == "winrate" else [f"@{name}"]
            told = settings_from(STAGES[stage], {JUDGES[stage]: what} | judged, f"{here}: {stage}")
            made.append(Step(stage, f"{stage} {arm}", told))
    if again := [step.name for i, step in enumerate(made) if step.name in {one.name for one in made[:i]}]:
        raise UserError(f"{where}: two entries make {again[0]!r}; a preset has one of winrate and one of mixeval")
    return made


def left_out(entries: Sequence[dict], mixeval: str | None) -> str:
    """What a preset's entries have that is left out, in words."""
    asked = any(entry.get("answers", {}).get("dataset") == MIXEVAL for entry in entries)
    return "MixEval is left out: --mixeval FOLDER says where it is" if asked and mixeval is None else ""


def _parts(entry: dict, where: str) -> tuple[str, dict, dict]:
    """(stage, settings of the draws, settings of the judging) of an entry."""
    for key in entry:
        if key not in ("answers", *JUDGES):
            raise UserError(f"{where}: unknown key {key!r:.60}; {did_you_mean(key, ('answers', *JUDGES))}")
    stages = [stage for stage in JUDGES if stage in entry]
    if len(stages) != 1 or not all(isinstance(value, dict) for value in entry.values()):
        raise UserError(f"{where}: needs tables: answers, and one of {' and '.join(JUDGES)}")
    drawn, judged = entry.get("answers", {}), entry[stages[0]]
    for stage, told, own in (("sample", drawn, ("model", "out")), (stages[0], judged, (JUDGES[stages[0]], "out"))):
        renamed.check_keys(stage, told, where)
        if taken := [key for key in own if key in told]:
            raise UserError(f"{where}: `{taken[0]}` is given by the recipe's arms, not by the entry")
    return stages[0], drawn, judged


def of(steps: Iterable[Step]) -> Iterator[tuple[Step, str, Sample]]:
    """(step, arm, settings of the draws) of every step that judges a policy's answers."""
    known = {step.name: step for step in steps}
    for step in known.values():
        stage, _, arm = step.name.partition(" ")
        drawn = known.get(f"{DRAWS.get(stage)} {arm}")
        if step.stage == stage and stage in JUDGES and drawn is not None:
            yield step, arm, drawn.settings


def names(steps: Iterable[Step]) -> set[str]:
    """The names of the steps that draw for a judge, and of those that judge."""
    return {name for step, arm, _ in of(steps) for name in (step.name, f"{DRAWS[step.stage]} {arm}")}


def measured(steps: Sequence[Step]) -> list[tuple[str, float]]:
    """(measure, temperature) of everything that a judge says of the arms."""
    found = ((name, draws.temperature[0]) for step, _, draws in of(steps) for name in OF_STAGE[step.stage])
    return list(dict.fromkeys(found))


def told(recipe: Recipe, given: Mapping[str, object], limits: Mapping[str, object]) -> Recipe:
    """`recipe` whose judges are told what a user says of them. given: judge, base_url, price, …, None for what nobody
    said; limits: max_calls and yes.

    Raises UserError for words about a judge where the recipe has none, and for a judge that is not known.
    """
    given = {name: value for name, value in given.items() if value is not None}
    if given and not any(step.stage in JUDGES for step in recipe.steps):
        flags = ", ".join("--" + name.replace("_", "-") for name in given)
        raise UserError(
            f"{flags}: {recipe.name}, preset {recipe.preset}, asks no judge; preset paper of the tables does"
        )

    if given.get("judge") is not None:
        pair_judges.check(str(given["judge"]))

    def one(step: Step) -> Step:
        if step.stage not in JUDGES:
            return step
        of_another = step.stage == "mixeval"  # whose judge is not that of the win rates
        known = {name for name in given if name in OF_SERVERS or not of_another}
        return replace(step, settings=replace(step.settings, **limits, **{name: given[name] for name in known}))

    return replace(recipe, steps=tuple(map(one, recipe.steps)))


# -- what they found -----------------------------------------------------------------------------------------------


def cells(recipe: Recipe, found: Sequence[dict[str, Done]]) -> pd.DataFrame:
    """`part` ("final"), `name` (arm), `run` (the judge), `measure, temperature, seed, query_id, value` of what the judges
    said, over the prompts of which every arm and seed has a value; and, part "without", how many others there were."""
    import pandas as pd

    parts = []
    for step, arm, draws in of(recipe.steps):
        for seed, done in enumerate(seed[step.name] for seed in found):
            each = pd.read_parquet(done.folder / "per_query.parquet", columns=["query_id", "measure", "value"])
            each = each[each["measure"].isin(OF_STAGE[step.stage])]
            about = {"part": "final", "name": arm, "run": judge_of(step.stage, done), "seed": seed}
            parts.append(each.assign(temperature=float(draws.temperature[0]), **about))
    if not parts:
        return pd.DataFrame()
    table = pd.concat(parts, ignore_index=True)
    everyone = table.groupby("measure")[["name", "seed"]].apply(lambda some: len(some.drop_duplicates()))
    count = table.groupby(["measure", "query_id"])["value"].transform("size")
    whole = count == table["measure"].map(everyone)
    lost = table[~whole].groupby("measure")["query_id"].nunique()
    about = {"part": "without", "name": "", "run": "", "temperature": float("nan"), "seed": 0, "query_id": ""}
    without = pd.DataFrame({"measure": lost.index, "value": lost.to_numpy(dtype=float)}).assign(**about)
    return pd.concat([table[whole], without], ignore_index=True) if len(without) else table


def judge_of(stage: str, done: Done) -> str:
    """What the judge of a finished step is called."""
    if stage == "winrate":
        return str(done.results["judge"].iloc[0])
    manifest = json.loads((done.folder / "manifest.json").read_text(encoding="utf-8"))
    model = (manifest["settings"].get("asked") or {}).get("model")
    return f"{manifest['judge']} ({model})" if model else str(manifest["judge"])
