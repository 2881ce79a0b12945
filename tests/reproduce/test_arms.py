"""A study's arms from folders: final values, values by iteration, tokens, and values at an equal budget."""

import json

import numpy as np
import pandas as pd
import pytest

from irlens.base.errors import UserError
from irlens.base.untrusted import markdown
from irlens.commands.settings import PassK, Train
from irlens.reproduce import arms, kept, run
from irlens.reproduce import study as studies
from irlens.reproduce.records import Claim, Done, Recipe, Step, Study

PROBLEMS = [f"q{i:02d}" for i in range(60)]


def train_folder(path, values, tokens=100, chosen=None, column="Pass@1"):
    """What a train stage leaves: values[iteration] is the share of right draws of all problems."""
    for s, value in enumerate(values):
        each = np.full(len(PROBLEMS), value) + np.linspace(-0.02, 0.02, len(PROBLEMS))
        here = path / "evaluation" / str(s)
        here.mkdir(parents=True)
        pd.DataFrame({"query_id": PROBLEMS[::-1], column: each}).to_parquet(here / "per_query.parquet")
        if s:
            (path / f"iteration-{s}").mkdir()
            pd.DataFrame({"n_tokens": [tokens - 1, 1]}).to_parquet(path / f"iteration-{s}" / "run.parquet")
    (path / "chosen.json").write_text(json.dumps({"iteration": len(values) - 1 if chosen is None else chosen}))
    return Done(path, None)


def report(recipe, found, out, style="screen"):
    return studies.report(recipe, kept.collect(recipe, found), out, lambda line: None, style)


def a_recipe(study, *names):
    steps = tuple(Step("train", name, Train(eval_temperature=(0.7,))) for name in names)
    return Recipe("r", "A title", None, "tiny", steps, study)


def test_values_by_iteration_and_of_the_chosen_policy(tmp_path):
    found = [{"a": train_folder(tmp_path / str(seed), [0.4, 0.5 + seed / 10, 0.45], chosen=1)} for seed in (0, 1)]
    steps = a_recipe(None, "a").steps
    along = arms.by_iteration(steps, found, "a")
    assert [cell["Pass@1", 0.7].mean().round(6) for cell in along] == [0.4, 0.55, 0.45, 0.55]
    assert arms.final(steps, found, "a")["Pass@1", 0.7].shape == (2, 60)
    assert arms.final(steps, found, "start")["Pass@1", 0.7].mean() == pytest.approx(0.4)
    assert (np.diff(along[0]["Pass@1", 0.7][0]) < 0).all()  # problems in the order of their names, whatever the file's


def test_test_steps_go_before_what_training_measured(tmp_path):
    done = train_folder(tmp_path / "a", [0.4, 0.5])
    seed = {"a": done}
    for name, value in (("test start", 0.1), ("test a", 0.2)):
        (tmp_path / name).mkdir()
        table = pd.DataFrame({"query_id": PROBLEMS, "run": "tiny T=1.0", "measure": "Pass@1", "value": value})
        table.to_parquet(tmp_path / name / "per_query.parquet")
        seed[name] = Done(tmp_path / name, None)
    steps = [*a_recipe(None, "a").steps, Step("passk", "test start", PassK()), Step("passk", "test a", PassK())]
    assert arms.final(steps, [seed], "a")["Pass@1", 1.0].mean() == pytest.approx(0.2)
    assert arms.final(steps, [seed], "start")["Pass@1", 1.0].mean() == pytest.approx(0.1)


def test_values_at_a_budget_by_hand():
    values = [np.array([[0.0, 0.2]]), np.array([[0.4, 0.4]]), np.array([[0.8, 0.4]])]
    spent = np.array([[0.0, 100.0, 300.0]])
    assert arms.at_budget(values, spent, 200).tolist() == pytest.approx(np.array([[0.6, 0.4]]))
    assert arms.at_budget(values, spent, 25).tolist() == pytest.approx(np.array([[0.1, 0.25]]))
    assert arms.at_budget(values, spent, 300).tolist() == pytest.approx(np.array([[0.8, 0.4]]))
    assert arms.at_budget(values, spent, 900).tolist() == pytest.approx(np.array([[0.8, 0.4]]))


def test_a_study_by_iteration_draws_both_and_judges_the_claim(tmp_path):
    study = Study("harder is better", "iterations", temperature=0.7, order=("easiest", "easy", "hardest"),
                  better=("hardest > easiest", "easiest > easy", "easy > easy2"), beside="3a")  # fmt: skip
    shares = {"easiest": 0.3, "easy": 0.5, "easy2": 0.5, "hardest": 0.6}
    found = [
        {arm: train_folder(tmp_path / f"{arm}{seed}", [0.4, value]) for arm, value in shares.items()}
        for seed in range(3)
    ]
    made = report(a_recipe(study, *shares), found, tmp_path)
    text = (tmp_path / "conclusions.md").read_text()
    assert "Preset tiny: 3 seeds, 60 problems" in text and all(f"- {markdown(line)}" in text for line in made)
    assert any("hardest above easiest, Pass@1 at T = 0.7: confirmed (+30.0 points" in line for line in made)
    assert any("easiest above easy, Pass@1 at T = 0.7: contradicted" in line for line in made)
    assert any("easy above easy2, Pass@1 at T = 0.7: not confirmed" in line for line in made)
    assert any("easiest < easy < hardest: confirmed (Page's trend test over 3 seeds" in line for line in made)
    drawn = pd.read_csv(tmp_path / "r.csv")
    ours, theirs = drawn[drawn["panel"] == "a"], drawn[drawn["panel"] == "b"]
    assert ours["value"].round(6).tolist() == [v for share in shares.values() for v in (0.4, share)]
    assert ours["curve"].tolist() == [arm for arm in shares for _ in range(2)] and ours["x"].tolist() == [0, 1] * 4
    assert (ours["low"] <= ours["value"]).all() and (ours["n"] == 60).all()
    assert theirs[theirs["curve"] == "hardest"]["value"].tolist() == [0.743, 0.7824, 0.8287, 0.8355]
    assert set(theirs["origin"]) == {"paper"} and list(dict.fromkeys(theirs["curve"]))[:2] == ["easiest", "easy"]


def test_a_difference_that_one_seed_alone_has_is_not_confirmed():
    spread = np.linspace(-0.02, 0.02, len(PROBLEMS))
    start = np.full((3, len(PROBLEMS)), 0.4) + spread
    cell = {"start": start, "a": start, "b": start + np.array([[0.3], [-0.01], [-0.02]])}
    tests, made = studies.judge(Study("c", better=("b > a",), gain=5), cell, "Pass@1")
    row = tests[(tests["before"] == "a") & (tests["after"] == "b")].iloc[0]
    assert row["p_holm"] < 0.05 and row["low"] < 0 < row["high"] and row["seeds_up"] == 1
    assert any(
        "b above a, Pass@1: not confirmed" in line and "though it can over these problems" in line for line in made
    )
    assert any(line.startswith("b,") and "not significant; a gain of 5 points is not reached" in line for line in made)


def test_a_budget_study_compares_at_equal_tokens(tmp_path):
    study = Study("lists are better", "budget", temperature=0.7, better=("many > few",))
    found = [
        {
            "few": train_folder(tmp_path / f"few{seed}", [0.4, 0.5], tokens=1000),
            "many": train_folder(tmp_path / f"many{seed}", [0.4, 0.6], tokens=4000),
        }
        for seed in range(2)
    ]
    made = report(a_recipe(study, "few", "many"), found, tmp_path)
    assert made[0].startswith(
        "few is ahead, Pass@1 at T = 0.7 after 1,000 generated tokens: 0.500 against many's 0.450, +5.0"
    )
    assert any("many above few" in line and "contradicted" in line for line in made)
    drawn = pd.read_csv(tmp_path / "r.csv")
    assert drawn[drawn["curve"] == "many"]["x"].tolist() == [0, 4000]
    assert drawn[drawn["curve"] == "few"]["value"].round(6).tolist() == [0.4, 0.5]


def test_bars_stand_beside_the_papers(tmp_path):
    study = Study("c", temperature=0.7, beside="table4", column="alpacaeval2_llama3_70b_wr")
    found = [{arm: train_folder(tmp_path / arm, [0.4, 0.5]) for arm in ("current", "previous", "all", "diverse")}]
    for style in ("screen", "paper"):
        report(a_recipe(study, "current", "previous", "all", "diverse"), found, tmp_path, style)
        drawn = pd.read_csv(tmp_path / "r.csv")
        assert drawn[drawn["panel"] == "a"]["bar"].tolist() == ["start", "current", "previous", "all", "diverse"]
        assert drawn[drawn["panel"] == "b"]["bar"].tolist() == ["start", "current", "previous", "all"]
        assert drawn[drawn["panel"] == "b"]["value"].tolist() == [48.38, 66.56, 70.92, 72.50]
        assert (tmp_path / "r.png").stat().st_size > 5000 and (tmp_path / "r.pdf").stat().st_size > 3000


def test_gains_over_the_start_are_those_of_the_tests_in_points(tmp_path):
    values = {"a": 0.5, "b": 0.3}
    found = [{arm: train_folder(tmp_path / arm, [0.4, values[arm]]) for arm in "ab"}]
    study = Study("c", "gains", temperature=0.7, better=("a > b",))
    report(a_recipe(study, "a", "b"), found, tmp_path)
    drawn, tests = pd.read_csv(tmp_path / "r.csv"), pd.read_csv(tmp_path / "tests.csv").head(2)
    assert drawn["group"].unique().tolist() == ["Pass@1 at T = 0.7, points above the start"]
    assert drawn["bar"].tolist() == ["a", "b"] and drawn["value"].tolist() == pytest.approx([10, -10])
    assert drawn[["low", "high"]].to_numpy() == pytest.approx(100 * tests[["low", "high"]].to_numpy())


def test_arms_on_an_axis(tmp_path):
    study = Study("c", "axis", temperature=0.7, x=(4.0, 8.0), x_label="candidates", beside="3c")
    found = [{"c4": train_folder(tmp_path / "a", [0.4, 0.5]), "c8": train_folder(tmp_path / "b", [0.4, 0.6])}]
    report(a_recipe(study, "c4", "c8"), found, tmp_path)
    drawn = pd.read_csv(tmp_path / "r.csv")
    ours = drawn[drawn["panel"] == "a"]
    assert ours["x"].tolist() == [4, 8] and ours["value"].round(6).tolist() == [0.5, 0.6]
    assert drawn[drawn["curve"] == "win rate"]["value"].tolist() == [61.72, 63.59, 64.88, 64.42]


def test_equal_values_differ_by_nothing():
    """Means and interpolation leave differences of 1e-17, which a test of signs would count."""
    cell = {"start": np.array([[0.1, 0.2, 0.3] * 5]), "a": np.array([[0.3 - 0.2, 0.1 + 0.1, 0.1 + 0.2] * 5])}
    tests, _ = studies.judge(Study("c"), cell, "value")
    assert tests["p"].tolist() == [1.0] and tests["effect"].tolist() == [0.0]


def test_arms_that_ended_are_left_out_of_figure_and_tests_by_name(tmp_path):
    """In two seeds, one of which one arm did not finish; on an axis, whose places stay with their arms."""
    study = Study("c", "axis", temperature=0.7, x=(4.0, 6.0, 8.0), x_label="candidates", order=("c4", "c6", "c8"),
                  better=("c8 > c6", "c8 > c4"))  # fmt: skip
    found = [
        {"c4": train_folder(tmp_path / f"a{seed}", [0.4, 0.5]), "c8": train_folder(tmp_path / f"b{seed}", [0.4, 0.6])}
        for seed in range(2)
    ]
    found[0]["c6"] = train_folder(tmp_path / "c0", [0.4, 0.5])
    found[1]["c6"] = Done(tmp_path / "c1", None, "iteration 1: nothing")
    made = a_recipe(study, "c4", "c6", "c8")
    table = kept.collect(made, found)
    said = studies.report(made, table, tmp_path, lambda line: None)
    table.to_parquet(tmp_path / "t.parquet")
    again = run.redraw(made, tmp_path / "t.parquet", tmp_path / "again", lambda line: None)
    assert json.loads((again / "manifest.json").read_text())["conclusions"] == said
    assert "c6 is left out, for it ended: in 1 of 2 seeds: iteration 1: nothing." in said
    assert "c8 > c6: not tested, since c6 ended." in said and any("c8 above c4" in line for line in said)
    drawn = pd.read_csv(tmp_path / "r.csv")
    assert drawn["x"].tolist() == [4, 8] and drawn["value"].round(6).tolist() == [0.5, 0.6]
    assert set(pd.read_csv(tmp_path / "tests.csv")["after"]) == {"c4", "c8"}


def test_a_budget_study_with_one_arm_left_compares_it_with_the_start(tmp_path):
    study = Study("c", "budget", temperature=0.7, better=("b > a",))
    found = [{"a": Done(tmp_path / "x", None, "why"), "b": train_folder(tmp_path / "b", [0.4, 0.6])}]
    made = a_recipe(study, "a", "b")
    said = studies.report(made, kept.collect(made, found), tmp_path, lambda line: None)
    assert [line.split(",")[0] for line in said[:3]] == ["b", "a is left out", "b > a: not tested"]
    assert [line.split(":")[0] for line in said[4:]] == ["One seed"]
    assert said[3] == (
        "The smallest differences that this design finds with probability .8, Pass@1 at T = 0.7 after 100 generated "
        "tokens: not known, as all problems differ by the same."
    )
    assert pd.read_csv(tmp_path / "tests.csv")["after"].tolist() == ["b"]


@pytest.mark.parametrize("kind", ["bars", "gains", "iterations", "budget"])
def test_everything_is_drawn_again_from_the_small_table_alone(tmp_path, kind):
    study = Study("c", kind, temperature=0.7, order=("a", "b", "c"), better=("c > a",))
    shares = {"a": 0.45, "b": 0.5, "c": 0.6}
    found = [
        {arm: train_folder(tmp_path / f"{arm}{seed}", [0.4, v + seed / 50], tokens=1000) for arm, v in shares.items()}
        for seed in range(4)
    ]
    made = a_recipe(study, *shares)
    table = kept.collect(made, found)
    (tmp_path / "first").mkdir()
    said = studies.report(made, table, tmp_path / "first", lambda line: None)
    table.to_parquet(tmp_path / "per_problem.parquet")
    again = run.redraw(made, tmp_path / "per_problem.parquet", tmp_path / "again", lambda line: None)
    assert json.loads((again / "manifest.json").read_text())["conclusions"] == said
    for name in ("r.csv", "arms.csv", "tests.csv", "conclusions.md"):
        assert (again / name).read_bytes() == (tmp_path / "first" / name).read_bytes()
    assert (again / "r.png").is_file() and (again / "r.pdf").is_file()


def test_figure_2_is_drawn_again_from_the_small_table_alone(tmp_path):
    claim = Claim("c", ("T = 0.1 > T = 1 at N = 1",))
    step = Step("passk", "passk", PassK(model="tiny", n=2, temperature=(0.1, 1.0)))
    made = Recipe("r", "A title", "2b", "tiny", (step,), None, claim)
    rng, found = np.random.default_rng(0), []
    for seed in range(3):
        (tmp_path / str(seed)).mkdir()
        rows = [
            (f"tiny T={t}", f"Pass@{N}", q, rng.integers(0, 2) * N / 2 + 0.0)
            for t in (0.1, 1.0)
            for N in (1, 2)
            for q in PROBLEMS
        ]
        table = pd.DataFrame(rows, columns=["run", "measure", "query_id", "value"])
        table.to_parquet(tmp_path / str(seed) / "per_query.parquet")
        found.append({"passk": Done(tmp_path / str(seed), None)})
    kept.collect(made, found).to_parquet(tmp_path / "t.parquet")
    again = run.redraw(made, tmp_path / "t.parquet", tmp_path / "again", lambda line: None)
    drawn = pd.read_csv(again / "r.csv")
    ours = drawn[drawn["origin"] == "measured"]
    assert ours["curve"].tolist() == ["T = 0.1", "T = 0.1", "T = 1", "T = 1"] and ours["x"].tolist() == [1, 2, 1, 2]
    values = [pd.read_parquet(tmp_path / str(s) / "per_query.parquet") for s in range(3)]
    first = pd.concat(values).query("run == 'tiny T=0.1' and measure == 'Pass@1'")["value"].mean()
    assert ours["value"].iloc[0] == pytest.approx(first)
    assert (again / "tests.csv").is_file() and "Three seeds hardly tell" in (again / "conclusions.md").read_text()


def test_a_table_of_another_recipe_is_refused(tmp_path):
    made = a_recipe(Study("c", temperature=0.7), "a")
    table = kept.collect(made, [{"a": train_folder(tmp_path / "a", [0.4, 0.5])}])
    table.to_parquet(tmp_path / "t.parquet")
    with pytest.raises(UserError, match="another recipe than r: it has no b"):
        run.redraw(a_recipe(Study("c", temperature=0.7), "a", "b"), tmp_path / "t.parquet", tmp_path / "o")
    with pytest.raises(UserError, match="no such file"):
        run.redraw(made, tmp_path / "u.parquet", tmp_path / "o")
    table.drop(columns="part").to_parquet(tmp_path / "u.parquet")
    with pytest.raises(UserError, match="not a table of values per problem; missing: part"):
        run.redraw(made, tmp_path / "u.parquet", tmp_path / "o")
    (tmp_path / "v.parquet").write_text("no table")
    with pytest.raises(UserError, match="not a Parquet file"):
        run.redraw(made, tmp_path / "v.parquet", tmp_path / "o")


def test_two_seeds_that_lie_apart_are_said_to_tell_nothing():
    rng = np.random.default_rng(0)
    start = rng.integers(0, 5, (2, 200)) / 4
    apart = {"start": start, "a": np.clip(start + np.array([[0.02], [0.3]]), 0, 1)}
    gains = {"a": apart["a"] - start}
    (said,) = studies.few_seeds(gains)
    assert said.startswith("Two seeds hardly tell how far seeds differ") and "no method can know that of two" in said
    tests, made = studies.judge(Study("c"), apart, "Pass@1")
    assert tests["p"].iloc[0] < 0.05 and "not significant" in made[0]
    assert tests["low"].iloc[0] < 0 < tests["high"].iloc[0]
    (said,) = studies.few_seeds({"a": rng.normal(size=(3, 300)) * 0.01 + rng.normal(size=300)})
    assert said.startswith("Three seeds hardly tell") and "no method" not in said
    assert studies.few_seeds({"a": np.zeros((4, 9))}) == []
    (said,) = studies.few_seeds({"a": rng.normal(size=(5, 300)) * 0.1 + rng.normal(size=(5, 1))})
    assert said.startswith("Seeds seem to make up to 100 %") and "rests on 5 numbers" in said
    (said,) = studies.few_seeds({"a": np.zeros((1, 9))})
    assert said.startswith("One seed: the intervals are over problems alone")
