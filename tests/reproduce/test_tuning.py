"""Learning rates tuned before a recipe: what is tried, what is chosen, what is refused, and the whole of it once."""

import json

import numpy as np
import pandas as pd
import pytest

from irlens.base.errors import UserError
from irlens.commands.settings import Train
from irlens.reproduce import recipe, run, tuning
from irlens.reproduce.records import Done, Recipe, Step, Study, Tune

HEAD = 'title = "t"\n[study]\nkind = "gains"\nclaim = "c"\nbetter = ["b > a"]\nalso = ["Pass@2"]\n'
ARMS = """
[shared.tiny]
stage = "train"
prompts = 8
n = 2
epochs = 1
iterations = 1
max_tokens = 24
eval_split = "test"
eval_limit = 6
eval_n = 2
positives_from = "gold"
[[preset.tiny]]
name = "a"
objective = "sft"
[[preset.tiny]]
name = "b"
objective = "sft"
epochs = 2
"""


def a_recipe(tmp_path, tune="[tune.tiny]\nlearning_rate = [1e-4, 3e-4]\nlimit = 4\nn = 2\n", arms=ARMS):
    path = tmp_path / "mine.toml"
    path.write_text(HEAD + tune + arms, encoding="utf-8")
    return recipe.load(str(path), "tiny")


def made(tmp_path, name, value, ended=None):
    """A train stage's folder whose last policy is right at `value` of 10 problems."""
    folder = tmp_path / name.replace(" ", "-")
    for s, share in ((0, 0.1), (2, value)):
        here = folder / "evaluation" / str(s)
        here.mkdir(parents=True)
        each = (np.arange(10) < 10 * share).astype(float)
        pd.DataFrame({"query_id": [f"q{i}" for i in range(10)], "Pass@1": each}).to_parquet(here / "per_query.parquet")
    return Done(folder, None, ended)


def test_what_is_tried_is_each_arm_with_each_rate_on_validation_problems(tmp_path):
    found = a_recipe(tmp_path)
    tries = tuning.trials(found).steps
    assert [step.name for step in tries] == ["a at 0.0001", "a at 0.0003", "b at 0.0001", "b at 0.0003"]
    assert [step.settings.learning_rate for step in tries] == [1e-4, 3e-4] * 2
    assert [step.settings.epochs for step in tries] == [1, 1, 2, 2]
    for step in tries:
        assert (step.settings.eval_split, step.settings.test_limit, step.settings.seed) == (None, 0, 1000)
        assert (step.settings.eval_limit, step.settings.eval_n) == (4, 2)
    assert {step.settings.eval_split for step in found.steps} == {"test"}  # of the arms as they were


def test_the_best_rate_is_chosen_the_smaller_of_equals_and_none_where_all_ended(tmp_path):
    steps = [Step("train", name, Train(iterations=2, learning_rate=9e-9)) for name in ("a", "b", "c")]
    study, tune = Study("c"), Tune((3e-4, 1e-4, 2e-4))
    values = {
        "a at 0.0001": 0.3, "a at 0.0002": 0.6, "a at 0.0003": 0.5,
        "b at 0.0001": 0.4, "b at 0.0002": 0.2, "b at 0.0003": 0.4,
    }  # fmt: skip
    done = {name: made(tmp_path, name, value) for name, value in values.items()}
    done |= {f"c at {rate:g}": Done(tmp_path, None, "nothing to rank") for rate in tune.learning_rate}
    said = []
    new = tuning.tuned(
        Recipe("r", "t", None, "tiny", tuple(steps), study, tune=tune), tmp_path, lambda *_: done, said.append
    )
    assert {step.name: step.settings.learning_rate for step in new.steps} == {"a": 2e-4, "b": 1e-4, "c": 9e-9}
    assert new.tune is None
    table = pd.read_csv(tmp_path / "tuned.csv")
    assert table["chosen"].sum() == 2 and table[table["arm"] == "a"]["value"].tolist() == [0.3, 0.6, 0.5]
    assert table[table["arm"] == "c"]["value"].isna().all()
    assert said[1:] == [
        "learning rates chosen on validation problems: a 0.0002 (0.600), b 0.0001 (0.400).",
        "the best rate is at the edge of the grid 0.0001 … 0.0003: b.",
    ]


@pytest.mark.parametrize(
    "tune, words",
    [
        ("[tune.tiny]\nlearning_rate = []\n", "learning_rate"),
        ("[tune.tiny]\nlearning_rate = [0.1, -1.0]\n", "rates above 0"),
        ("[tune.tiny]\nlearning_rate = [0.1, 0.1]\n", "twice"),
        ("[tune.tiny]\nlearning_rate = [0.1]\nlimit = 0\n", "from 1 on"),
        ("[tune.tiny]\nlearning_rate = [0.1]\nseed = -1\n", "seed"),
        ("[tune.tiny]\nrate = [0.1]\n", "rate"),
        ("[tune.tinny]\nlearning_rate = [0.1]\n", "no such preset"),
        ("[[tune.tiny]]\nlearning_rate = [0.1]\n", "must be a table"),
        ("[tune]\ntiny = 3\n", "must be a table"),
    ],
)
def test_a_grid_that_is_none_is_named(tmp_path, tune, words):
    with pytest.raises(UserError, match=words):
        a_recipe(tmp_path, tune)


def test_a_grid_needs_right_answers_and_something_that_decides(tmp_path):
    with pytest.raises(UserError, match="reward model judges"):
        measured = ARMS.replace('eval_split = "test"', 'eval_split = "test"\nreward = "fsfairx"')
        path = tmp_path / "mine.toml"
        head = HEAD.replace('also = ["Pass@2"]', 'measure = "win rate"')
        path.write_text(head + "[tune.tiny]\nlearning_rate = [0.1]\n" + measured, encoding="utf-8")
        recipe.load(str(path), "tiny")
    with pytest.raises(UserError, match="decides"):
        path.write_text('title = "t"\n[tune.tiny]\nlearning_rate = [0.1]\n' + ARMS, encoding="utf-8")
        recipe.load(str(path), "tiny")


def test_a_measure_that_is_tested_too_must_be_measured(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(HEAD.replace("Pass@2", "Pass@64") + ARMS, encoding="utf-8")
    with pytest.raises(UserError, match="not measured by Pass@64 at T = 1; they are by Pass@1 at T = 1, Pass@2"):
        recipe.load(str(path), "tiny")


@pytest.mark.slow
def test_tuned_trained_tested_and_read_again(tmp_path):
    found, out = a_recipe(tmp_path), tmp_path / "out"
    run.run(found, out, lambda line: None, seeds=[0], jobs=1)
    table = pd.read_csv(out / "tuned.csv")
    best = table[table["chosen"]].set_index("arm")["learning_rate"]
    for number, arm in enumerate("ab", 1):
        manifest = json.loads((out / "seed-0" / f"{number}-{arm}" / "manifest.json").read_text(encoding="utf-8"))
        assert manifest["settings"]["learning_rate"] == best[arm]
    assert set(pd.read_csv(out / "tests.csv")["detectable"] > 0) <= {True, False}
    assert (out / "tests-Pass@2.csv").is_file() and pd.read_csv(out / "mine.csv")["group"].nunique() == 2
    before, said = (out / "tuned.csv").read_bytes(), []
    run.run(found, out, said.append, seeds=[0], jobs=1)
    assert (out / "tuned.csv").read_bytes() == before and any(line.startswith("b above a") for line in said)
