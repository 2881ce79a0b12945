"""A TOML recipe read and checked: the stages of a preset, what they are called, and what they are to show."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path

from irlens.base.errors import UserError, did_you_mean
from irlens.base.options import settings_from
from irlens.base.untrusted import check_name
from irlens.commands import renamed
from irlens.commands.settings import PassK
from irlens.reproduce import chat, figure2, overoptimisation, tuning
from irlens.reproduce.records import OVER, STAGES, Claim, Recipe, Step, Study, Tune
from irlens.reproduce.study import check_study

REFERENCES = ("model", "run", "qrels", "outputs", "runs", "data", "reward", "eval_reward", "reranker")
KEYS = ("title", "like", "figure", "claim", "shared", "preset", "test", "chat", "study", "tune")


def folder() -> Path:
    """Where the recipes are: beside the package in a checkout, inside it once installed."""
    here = Path(__file__).parent.parent
    installed = here / "experiments"
    return installed if installed.is_dir() else here.parent / "experiments"


def names() -> list[str]:
    """The recipes that ship with irlens."""
    return sorted(path.stem for path in folder().glob("*.toml"))


def load(name: str, preset: str, mixeval: str | None = None) -> Recipe:
    """A shipped recipe or a TOML file. mixeval: the folder of MixEval; without one its steps are left out. Raises UserError
    for an unknown name, preset, stage or setting, and for a name that cannot be a folder's."""
    path, content = _content(name)
    check_name(preset, "--preset")
    check_name(path.stem, f"{path}: the recipe's name")
    presets = content.get("preset", {})
    if preset not in presets:
        raise UserError(
            f"{path}: no preset {preset!r}; {did_you_mean(preset, presets) if presets else 'the recipe has none'}"
        )
    entries, other = presets[preset], preset
    if isinstance(entries, str):  # another preset's stages, with settings of its own
        if not isinstance(presets.get(entries), list):
            raise UserError(f"{path}: preset {preset} = {entries!r}: no such preset with stages")
        entries, other = presets[entries], entries
    shared, chats = content.get("shared", {}), content.get("chat", {})
    for table in ("shared", "test", "chat", "tune"):
        for unknown in content.get(table, {}).keys() - presets.keys():
            raise UserError(f"{path}: {table}.{unknown}: no such preset; {did_you_mean(unknown, presets)}")
    steps = _steps(entries, shared.get(preset, {}), f"{path}: preset {preset}")
    tested = content.get("test", {}).get(preset)
    if tested:
        steps += _tests(steps, tested, f"{path}: test {preset}")
    asked = chats.get(preset, chats.get(other, ()))
    if asked:
        steps += chat.steps(steps, asked, mixeval, f"{path}: chat {preset}")
    left_out = chat.left_out(asked, mixeval)
    figure, claim, study = content.get("figure"), None, None
    if figure is not None:
        figure2.check(figure, steps, f"{path}: figure")
    if "claim" in content:
        if "study" in content:
            raise UserError(f"{path}: a recipe has a claim (of Figure 2b) or a study: both write tests.csv")
        claim = settings_from(Claim, content["claim"], f"{path}: claim")
        figure2.check_claim(claim, steps, f"{path}: claim")
    if "study" in content:
        plain = {key: value for key, value in content["study"].items() if key not in presets}
        study = settings_from(Study, plain | content["study"].get(preset, {}), f"{path}: study")
        (overoptimisation.check if study.kind == OVER else check_study)(study, steps, f"{path}: study")
    tune = content.get("tune", {}).get(preset)
    if tune is not None:
        tune = settings_from(Tune, tune, f"{path}: tune {preset}")
        tuning.check(tune, steps, study is not None, f"{path}: tune {preset}")
    return Recipe(
        path.stem, content.get("title", path.stem), figure, preset, tuple(steps), study, claim, left_out, tune
    )


def presets(name: str) -> list[str]:
    """The presets of a recipe."""
    return list(_content(name)[1].get("preset", {}))


def _content(name: str, seen: tuple[str, ...] = ()) -> tuple[Path, dict]:
    """The file of a recipe and what it says, with what it takes from the recipe that it is `like`. seen: those like it."""
    path = Path(name) if name.endswith(".toml") else folder() / f"{name}.toml"
    if not path.is_file():
        raise UserError(
            f"{path}: no such file"
            if name.endswith(".toml")
            else f"unknown recipe {name!r}; {did_you_mean(name, names())}"
        )
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # of tomllib: bytes, syntax, numbers of thousands of digits, depth
        raise UserError(f"{path}: malformed TOML ({error})") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    for key in content:
        if key not in KEYS:
            raise UserError(f"{path}: unknown key {key!r:.60}; {did_you_mean(key, KEYS)}")
    _check_kinds(content, path)
    if "like" in content:
        if content["like"] in (seen := (*seen, name)):
            raise UserError(f"{path}: a recipe cannot be like itself ({' → '.join((*seen, content['like']))})")
        content = _over(_content(content["like"], seen)[1], content)
        _check_kinds(content, path)
    return path, content


def _check_kinds(content: dict, path: Path) -> None:
    """Raises UserError for a key of a recipe whose value is of another kind than is read there."""
    for key, value in content.items():
        text, tables = (
            key in ("title", "like", "figure"),
            {"preset": (list, str), "shared": (dict,), "tune": (dict,), "test": (list,), "chat": (list,)}.get(key, ()),
        )
        if not isinstance(value, str if text else dict):
            raise UserError(f"{path}: {key} must be a {'text' if text else 'table'}, got {value!r:.60}")
        for name, one in value.items() if tables else ():
            if name not in content.get("preset", {}):
                continue  # said in better words
            where = f"{path}: {key}.{name[:60]}"
            if not isinstance(one, tables) or not all(
                isinstance(entry, dict) for entry in one if isinstance(one, list)
            ):
                raise UserError(
                    f"{where} must be a {'table' if key in ('shared', 'tune') else 'list of tables'}, got {one!r:.60}"
                )


def _over(below: dict, above: dict) -> dict:
    """`below` with what `above` says, table by table."""
    both = {k: _over(below[k], v) for k, v in above.items() if isinstance(v, dict) and isinstance(below.get(k), dict)}
    return below | above | both


def _steps(entries: list[dict], shared: dict, where: str) -> list[Step]:
    """The stages of a preset; each has the `shared` settings and, before those, its own."""
    steps: list[Step] = []
    for number, entry in enumerate(entries, 1):
        here = f"{where}, stage {number}"
        entry = shared | entry
        stage, name = entry.pop("stage", None), entry.pop("name", None)
        if not isinstance(stage, str) or stage not in STAGES:
            raise UserError(f"{here}: unknown stage {stage!r:.60}; {did_you_mean(str(stage)[:60], STAGES)}")
        if "out" in entry:
            raise UserError(f"{here}: `out` is given by the command, not by the recipe")
        renamed.check_keys(stage, entry, here)
        check_name(stage if name is None else name, f"{here}: name")
        steps.append(_named(Step(stage, name or stage, settings_from(STAGES[stage], entry, here)), steps, here))
    if not steps:
        raise UserError(f"{where} has no stage")
    return steps


def _named(step: Step, before: list[Step], where: str) -> Step:
    """`step`, if its name is its own and the policy it asks for is made by an earlier one."""
    if step.name in {other.name for other in before}:
        raise UserError(f"{where}: two stages are called {step.name!r}; give each a `name`")
    for key, given in references(step.settings):
        known = [other.name for other in before if key != "model" or other.stage == "train"]
        if given not in known:
            what = "train stage" if key == "model" else "stage"
            raise UserError(f"{where}: {key} '@{given}': no earlier {what} of that name; {did_you_mean(given, known)}")
    return step


def references(settings: object) -> list[tuple[str, str]]:
    """(setting, name of the step) of every `@name` in a step's settings."""
    found = []
    for key in REFERENCES:
        given = getattr(settings, key, None)
        some = given if isinstance(given, (tuple, list)) else [given]
        found += [(key, one[1:]) for one in some if isinstance(one, str) and one.startswith("@")]
    return found


def _tests(steps: list[Step], entries: list[dict], where: str) -> list[Step]:
    """Pass@N of the start and of every trained policy on the same test problems: steps `test start`, `test NAME`.

    Each entry is such a set of steps: other temperatures may need fewer draws. From the second on, names end in its number.
    """
    arms = {step.name: step.settings for step in steps if step.stage == "train"}
    if not arms:
        raise UserError(f"{where}: no stage trains, so there is nothing to test")
    start, made = next(iter(arms.values())).model, []
    for number, entry in enumerate(entries, 1):
        renamed.check_keys("passk", entry, where)
        settings = settings_from(PassK, {"model": start} | entry, where)
        for arm in ("start", *arms):
            name = f"test {arm}" + (f" {number}" if number > 1 else "")
            made.append(Step("passk", name, replace(settings, model=start if arm == "start" else f"@{arm}")))
    return made
