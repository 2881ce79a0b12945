"""Recipes: every one that ships is valid in every preset, and a damaged one is named."""

import json
from pathlib import Path

import pandas as pd
import pytest

from irlens import tasks
from irlens.base.errors import NothingToRank, UserError
from irlens.base.options import cutoffs, settings_from
from irlens.commands import validation as held_out
from irlens.commands.settings import PassK
from irlens.models import catalog
from irlens.reproduce import costs, recipe, run
from irlens.train import losses as objectives

NAMES = {
    "fig2",
    "fig2a",
    "fig2b",
    "fig3a",
    "fig3b",
    "fig3c",
    "fig4",
    "table2",
    "table3",
    "table4",
    "table5",
    "math",
    "budget",
}
SHIPPED = [(name, preset) for name in recipe.names() for preset in recipe.presets(name)]


def test_every_figure_and_table_has_a_recipe_in_both_presets():
    assert set(recipe.names()) >= NAMES
    for name in recipe.names():
        assert set(recipe.presets(name)) >= {"tiny", "paper"}, name


@pytest.mark.parametrize("name, preset", SHIPPED)
def test_a_shipped_recipe_is_valid_to_the_last_key(name, preset):
    """Without weights, data or network: names of models, data sets, objectives and rewards, list shapes, ranges."""
    from irlens.commands import train as training

    found = recipe.load(name, preset)
    assert found.title and found.steps
    trained = [step for step in found.steps if step.stage == "train"]
    assert not trained or found.study.claim
    for step in found.steps:
        settings = step.settings
        policy = getattr(settings, "model", None)
        assert policy is None or policy in catalog.MODELS or policy.startswith("@")
        assert getattr(settings, "dataset", None) in (None, *tasks.NAMES)
        for one in getattr(settings, "retriever", "bm25").split(","):
            assert one in catalog.RETRIEVERS
    for step in trained:
        training._check(step.settings)
        objectives.get(step.settings.objective).resolve(beta=step.settings.beta, nll=step.settings.nll)
        assert {step.settings.reward, step.settings.eval_reward} <= {None, *catalog.REWARDS}
        dataset = step.settings.dataset or catalog.MODELS[step.settings.model].dataset
        assert step.settings.reward or dataset != "ultrafeedback"
    assert len({step.settings.model for step in trained}) <= 1  # arms differ in what is studied only
    costs.of_steps(found.steps)


MEASURED = sorted((Path(__file__).resolve().parents[2] / "figures").glob("*.manifest.json"))


@pytest.mark.parametrize("manifest", MEASURED, ids=lambda path: path.name.partition(".")[0])
def test_the_estimate_of_a_tiny_preset_is_what_a_core_took(manifest):
    """The kept figures are of five seeds, and their manifests have the seconds of all steps; minutes, but for table 3 and
    the comparisons of many arms."""
    name = manifest.name.partition(".")[0]
    measured = json.loads(manifest.read_text())["wall_seconds_of_steps"] / 60 / 5
    estimate = costs.total(costs.of_steps(recipe.load(name, "tiny").steps)).cpu_minutes
    assert 0.6 < measured / estimate < 2.5
    assert measured < (45 if name in ("table3", "schedules", "losses") else 15)


@pytest.mark.parametrize("name", sorted(NAMES))
def test_all_presets_of_a_recipe_choose_or_none_does(name):
    """A question is the same on either preset: policies are the last ones, or the best on other problems."""
    ways = set()
    for preset in recipe.presets(name):
        for step in recipe.load(name, preset).steps:
            if step.stage == "train":
                ways.add(held_out.chooses(step.settings))
    assert len(ways) <= 1


def test_fig3a_has_the_papers_tiers():
    steps = {step.name: step.settings for step in recipe.load("fig3a", "paper").steps}
    assert list(steps) == ["easiest", "easy", "hard", "hardest"]
    assert [s.tier for s in steps.values()] == ["easiest", "easy", "own", "own"]
    assert steps["hard"].temperature == (1.0,) and steps["hardest"].temperature == (0.7,)
    assert all(s.positives_from == "both" and s.iterations == 3 and s.model == "mathstral" for s in steps.values())


def test_a_recipe_shares_settings_is_like_another_and_names_one_preset_by_another(tmp_path):
    below = tmp_path / "below.toml"
    below.write_text("""
title = "below"
[shared.tiny]
stage = "train"
prompts = 7
n = 3
[shared.other]
stage = "train"
prompts = 9
[preset]
other = "tiny"
[[preset.tiny]]
name = "a"
n = 5
[[preset.tiny]]
name = "b"
[study]
claim = "b is better"
better = ["b > a"]
[study.other]
better = ["a > b"]
""")
    one, other = recipe.load(str(below), "tiny"), recipe.load(str(below), "other")
    assert [(s.settings.prompts, s.settings.n) for s in one.steps] == [(7, 5), (7, 3)]
    assert [(s.settings.prompts, s.settings.n) for s in other.steps] == [(9, 5), (9, 8)]
    assert one.study.better == ("b > a",) and other.study.better == ("a > b",)
    above = tmp_path / "above.toml"
    above.write_text(f'title = "above"\nlike = "{below}"\n[shared.tiny]\nprompts = 11\n')
    made = recipe.load(str(above), "tiny")
    assert made.title == "above" and [(s.settings.prompts, s.settings.n) for s in made.steps] == [(11, 5), (11, 3)]
    above.write_text(f'like = "{above}"\n')
    with pytest.raises(UserError, match="cannot be like itself"):
        recipe.load(str(above), "tiny")


CLAIM = "[[preset.tiny]]\nstage = 'passk'\n[claim]\n"
STUDY = "[[preset.tiny]]\nstage = 'train'\nname = 'a'\n[study]\nclaim = 'c'\n"


def test_what_runs_at_once_needs_nothing_of_each_other():
    for name, preset in SHIPPED:
        steps = recipe.load(name, preset).steps
        groups = run._independent(steps)
        assert sorted(n for group in groups for n in group) == sorted(step.name for step in steps)
        where = {n: group for group in groups for n in group}
        for step in steps:
            needed = str(getattr(step.settings, "model", ""))
            assert not needed.startswith("@") or where[needed[1:]] == where[step.name], name
        arms = sum(step.stage == "train" for step in steps)
        assert len(groups) >= arms and (name != "fig2" or len(groups) == 1)  # Figure 2's stages may share an index


def test_fig2b_has_the_papers_settings():
    (step,) = recipe.load("fig2b", "paper").steps
    settings = step.settings
    assert step.stage == "passk" and settings.model == "mathstral" and settings.dataset == "gsm8k"
    assert settings.temperature == (0.1, 0.2, 0.5, 0.7, 1.0) and settings.at == (1, 3, 5, 10, 20, 50, 100)


@pytest.mark.parametrize("text, message", [
    ("[[preset.tiny]]\nstage = 'pask'", "stage 1: unknown stage 'pask'; did you mean 'passk'"),
    ("[[preset.tiny]]\nstage = 'passk'\nmodle = 'tiny'", "unknown setting 'modle'; did you mean 'model'"),
    ("[[preset.tiny]]\nstage = 'passk'\nn = 'ten'", "n = 'ten' is not of type int"),
    ("[[preset.tiny]]\nstage = 'passk'\ntemperature = 1.0", "temperature = 1.0 is not of type tuple"),
    ("[[preset.tiny]]\nstage = 'passk'\nout = 'x'", "`out` is given by the command"),
    ("titel = 'x'", "unknown key 'titel'; did you mean 'title'"),
    ("figure = '2d'\n[[preset.tiny]]\nstage = 'passk'", "unknown figure '2d'; did you mean '2"),
    ("figure = '2'\n[[preset.tiny]]\nstage = 'passk'", "figure 2 needs a stage recall"),
    (CLAIM + "text = 't'", "claim: better is missing"),
    (STUDY + "[claim]\ntext = 't'", "a claim .of Figure 2b. or a study"),
    (CLAIM + "text = 't'\nbetter = ['T = 0.1 > T = 1']", 'must be "T = 0.1 > T = 1 at N = 1"'),
    (CLAIM + "text = 't'\nbetter = ['T = 0.3 > T = 1 at N = 1']", "T = 0.3 is not drawn at"),
    (CLAIM + "text = 't'\nbetter = ['T = 0.1 > T = 1 at N = 2']", "N = 2 is not measured; .1, 3, 5"),
    ("[[preset.tiny]]\nstage = 'train'\n[study]\nkind = 'bars'", "study: claim is missing"),
    ("title = 'x'", "no preset 'tiny'"),
    ("[[preset.tiny", "malformed TOML"),
    ("[preset]\ntiny = 'big'", "preset tiny = 'big': no such preset with stages"),
    ("[shared.tny]\nn = 1\n[[preset.tiny]]\nstage = 'passk'", "shared.tny: no such preset; did you mean 'tiny'"),
    ("[shared.tiny]\nm = 1\n[[preset.tiny]]\nstage = 'passk'", "unknown setting 'm'"),
    ("[test.tny]\nn = 1\n[[preset.tiny]]\nstage = 'passk'", "test.tny: no such preset; did you mean 'tiny'"),
    (STUDY + "kind = 'bar'", "kind 'bar'; did you mean 'bars'"),
    (STUDY + "x = [1]", "x and kind = .axis. need each other"),
    (STUDY + "kind = 'axis'\nx = [1, 2]", "x has 2 places for 1 arms"),
    (STUDY + "better = ['a > c']", "no arm 'c' is tested"),
    (STUDY + "measure = 'Pass@2'", "not measured by Pass@2 at T = 1; they are by Pass@1 at T = 1, Pass@16"),
    (STUDY + "kind = 'gains'\nbeside = '3b'", 'the paper has no gains of its own; kind "gains" stands alone'),
    (STUDY + "beside = '3d'", "unknown figure of the paper '3d'"),
    (STUDY + "beside = 'table3'\ncolumn = 'wr'", "table3 of the paper has no column 'wr'"),
])  # fmt: skip
def test_a_damaged_recipe_is_named(tmp_path, text, message):
    path = tmp_path / "r.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as error:
        recipe.load(str(path), "tiny")
    assert str(path) in str(error.value)


def test_settings_from_plain_values():
    made = settings_from(PassK, {"n": 5, "temperature": [1, 0.5]}, "here")
    assert made == PassK(n=5, temperature=(1, 0.5))
    with pytest.raises(UserError, match="n = True"):
        settings_from(PassK, {"n": True}, "here")


def test_cutoffs():
    assert cutoffs(100, None) == [1, 3, 5, 10, 20, 50, 100]
    assert cutoffs(7, None) == [1, 3, 5, 7]
    assert cutoffs(7, (5, 1, 5)) == [1, 5]
    with pytest.raises(UserError, match="smaller than the largest N asked for, 8"):
        cutoffs(7, (1, 8))


ENDING = """
title = "An arm that ends"
[shared.tiny]
stage = "train"
objective = "pairwise"
iterations = 1
prompts = 12
n = 4
epochs = 1
batch_lists = 8
eval_split = "test"
eval_limit = 6
eval_n = 2
[[preset.tiny]]
name = "short"
max_tokens = 4
[[preset.tiny]]
name = "long"
[[test.tiny]]
n = 2
limit = 6
at = [1]
[study]
claim = "longer is better"
order = ["short", "long"]
better = ["long > short"]
"""


@pytest.mark.slow
def test_an_arm_that_finds_nothing_to_rank_ends_alone(tmp_path):
    path = tmp_path / "ending.toml"
    path.write_text(ENDING)
    found, said = recipe.load(str(path), "tiny"), []
    out = run.run(found, tmp_path / "out", said.append, jobs=1)
    why = "iteration 1: none of 12 prompts gives a list to rank: 12 too few finished draws (a larger --max-tokens)"
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["status"] == "complete" and manifest["arms_ended"] == {"short": why}
    assert f"short is left out, for it ended: {why}." in manifest["conclusions"]
    assert "long > short: not tested, since short ended." in manifest["conclusions"]
    conclusions = (out / "conclusions.md").read_text()
    assert all(sentence in conclusions for sentence in manifest["conclusions"])
    assert set(pd.read_csv(out / "arms.csv")["arm"]) == {"start", "long"}
    assert pd.read_csv(out / "tests.csv")["after"].tolist() == ["long"]
    assert set(pd.read_csv(out / "ending.csv")["bar"]) == {"start", "long"}
    assert f"short ended: {why}" in said and "left out: short ended" in said
    again = []
    run.run(found, tmp_path / "out", again.append, jobs=1)  # at once: nothing is drawn a second time
    assert any("reused the lists" in line for line in again) and not any("draws/s" in line for line in again)
    assert (out / "conclusions.md").read_text() == conclusions


def test_a_study_of_which_every_arm_ends_says_so(tmp_path, monkeypatch):
    def nothing(settings, say):
        raise NothingToRank("iteration 1: nothing")

    monkeypatch.setitem(run.COMMANDS, "train", nothing)
    monkeypatch.setitem(run.COMMANDS, "passk", lambda settings, say: (tmp_path, None))
    (tmp_path / "manifest.json").write_text("{}")
    path = tmp_path / "ending.toml"
    path.write_text(ENDING + '[[preset.tiny]]\nname = "after"\nmodel = "@short"\n')
    with pytest.raises(
        UserError, match="every arm ended, so there is nothing to report: short: iteration 1: nothing; lon"
    ):
        run.run(recipe.load(str(path), "tiny"), tmp_path / "out", str, jobs=1)
    ended = json.loads((tmp_path / "out" / "manifest.json").read_text())["arms_ended"]
    assert ended == {"short": "iteration 1: nothing", "long": "iteration 1: nothing", "after": "short ended"}
