"""The study of over-optimisation: constructed courses in both directions, figure and verdicts, and a small run of all of it."""

import json

import numpy as np
import pandas as pd
import pytest

from irlens.base.errors import UserError
from irlens.commands.reward_models import RewardBench
from irlens.commands.settings import PassK, Train
from irlens.measure.best_of_n import PER_TEXT
from irlens.measure.overoptimisation import PROXY
from irlens.reproduce import costs, kept, overoptimisation, recipe, run
from irlens.reproduce.records import OVER, Done, Recipe, Step, Study

PROBLEMS = [f"q{i:02d}" for i in range(50)]
AT = (1, 10, 100, 1000)
PEAKED, RISING = (0.3, 0.5, 0.4, 0.1), (0.3, 0.4, 0.5, 0.6)
NULL = (0.3, 0.28, 0.26, 0.25)


def course(truth, proxy=(0.0, 1.0, 2.0, 3.0), null=NULL, seeds=3):
    """A course whose means are these, problems and seeds differing a little."""

    def values(means, salt):
        rng = np.random.default_rng(salt)
        own = rng.normal(0, 0.03, len(PROBLEMS))
        return [mean + own + rng.normal(0, 0.01, (seeds, len(PROBLEMS))) for mean in means]

    return overoptimisation.Course("Best of N", "N = ", list(AT), values(proxy, 0), values(truth, 1), values(null, 2))


def said_of(one):
    return overoptimisation.verdicts(one, overoptimisation.judged([one]))


def test_a_truth_that_falls_while_the_reward_rises_is_found_and_from_where():
    where, best, first, fall, null = said_of(course(PEAKED))
    assert where.startswith("Best of N: the truth is highest at N = 10 (0.497; ")
    assert "falls from its best while the reward rises: confirmed from N = 100 on (at N = 1,000" in best
    assert "against what is best on other problems: the truth -39.9 points [-4" in best
    assert "falls below one draw while the reward rises: confirmed from N = 1,000 on" in first
    assert "further than by a random number per text: confirmed (-3" in fall and "per text: worse (-1" in null


def test_a_truth_that_rises_with_the_reward_is_no_over_optimisation():
    where, best, first, null = said_of(course(RISING))
    assert "highest at N = 1,000" in where
    assert best.endswith("while the reward rises: not confirmed: the truth is highest at the last N.")
    assert "falls below one draw while the reward rises: contradicted" in first and "per text: better (+3" in null


def test_a_truth_that_falls_with_the_reward_or_as_its_null_does_is_no_over_optimisation():
    _, best, first, _, _ = said_of(course(PEAKED, proxy=(3.0, 2.0, 1.0, 0.0)))
    assert "reward rises: not confirmed (at" in best and "reward rises: not confirmed (at" in first
    *_, fall, null = said_of(course(PEAKED, null=(0.3, 0.5, 0.4, 0.1)))
    assert "per text: not confirmed (" in fall and "no better than chance allows" in null
    *_, fall, _ = said_of(course(PEAKED, null=(0.6, 0.9, 0.5, 0.1)))
    assert "per text: contradicted (+" in fall


def test_from_where_on_all_must_hold():
    assert overoptimisation._from({1: True, 2: False, 3: True, 4: True}) == 3
    assert overoptimisation._from({1: True, 2: False}) is None and overoptimisation._from({1: True, 2: True}) == 1


# -- from folders --------------------------------------------------------------------------------------------------


def a_recipe(**study):
    steps = (
        Step("passk", "drawn", PassK(model="tiny-countdown", limit=4, n=1000)),
        Step("rewardbench", "audit", RewardBench(reranker="tiny-rm", run="@drawn", at=AT)),
        Step("train", "larpo", Train(reward="tiny-rm", eval_split="test")),
    )
    return Recipe("r", "A title", None, "tiny", steps, Study("c", OVER, **study))


def folders(path, seed, measures=("win rate", "reward", "Pass@1")):
    """What the stages leave: picks of the reranker, of the null and its own numbers, and values after each iteration."""
    rng, rows = np.random.default_rng(seed), []
    means = {"tiny-rm": PEAKED, PROXY: (0, 1, 2, 3), PER_TEXT: NULL, "oracle": (0.3, 0.6, 0.9, 1), "random": (0.3,) * 4}
    for who, values in means.items():
        for N, mean in zip(AT, values):
            rows += [(who, N, q, mean + rng.normal(0, 0.02)) for q in PROBLEMS]
    audit, train = path / f"audit-{seed}", path / f"train-{seed}"
    audit.mkdir(parents=True)
    pd.DataFrame(rows, columns=["run", "cutoff", "query_id", "value"]).to_parquet(audit / "picks.parquet")
    for s, (reward, truth) in enumerate(zip((0.0, 0.5, 1.0), (0.4, 0.5, 0.2))):
        (train / "evaluation" / str(s)).mkdir(parents=True)
        means = {"win rate": 0.5, "reward": reward, "Pass@1": truth}
        table = {m: means[m] + rng.normal(0, 0.02, len(PROBLEMS)) for m in measures}
        pd.DataFrame({"query_id": PROBLEMS} | table).to_parquet(train / "evaluation" / str(s) / "per_query.parquet")
    (train / "chosen.json").write_text(json.dumps({"iteration": 2}))
    return {"drawn": Done(path, None), "audit": Done(audit, None), "larpo": Done(train, None)}


def test_figure_and_verdicts_come_from_the_small_table_alone(tmp_path):
    made, found = a_recipe(), [folders(tmp_path, seed) for seed in range(2)]
    table = kept.collect(made, found)
    table.to_parquet(tmp_path / "t.parquet")
    again = run.redraw(made, tmp_path / "t.parquet", tmp_path / "again", lambda line: None)
    said = json.loads((again / "manifest.json").read_text())["conclusions"]
    assert [line.split(":")[0].split(",")[0] for line in said[:7]] == 5 * ["Best of N by tiny-rm"] + 2 * [
        "Training by tiny-rm"
    ]
    assert "confirmed from iteration 2 on" in said[6] and said[-1].startswith("Two seeds hardly tell")
    drawn = pd.read_csv(again / "r.csv").set_index(["panel", "curve", "x"])["value"]
    truth = table[(table["run"] == "tiny-rm") & (table["measure"] == "best-of-N@1000")]["value"]
    assert len(truth) == 100 and drawn["a", "true value of the pick", 1000] == pytest.approx(truth.mean())
    assert drawn["a", "reward (right axis)", 1000] == pytest.approx(3, abs=0.02)
    assert drawn["b", "true Pass@1", 2] == pytest.approx(0.2, abs=0.02) and ("b", "reward (right axis)", 0) in drawn
    assert drawn["a", "random number per text (null)", 1] == pytest.approx(0.3, abs=0.02)
    tests = pd.read_csv(again / "tests.csv")
    assert (tests["p_holm"] >= tests["p"]).all() and set(tests["seeds"]) == {2} and len(tests) == 15 + 6
    assert kept.judges(table) == {"win rate": "tiny-rm", "reward": "tiny-rm"}  # the truth is a verifier's
    assert "Claim: c" in (again / "conclusions.md").read_text() and (again / "r.png").stat().st_size > 5000


def test_what_cannot_be_followed_is_said(tmp_path):
    made = a_recipe()
    for lacks, message in (("Pass@1", "its task has no verifier"), ("reward", "scores within a list only")):
        left = tuple(m for m in ("win rate", "reward", "Pass@1") if m != lacks)
        table = kept.collect(made, [folders(tmp_path / lacks.replace("@", ""), 0, left)])
        with pytest.raises(UserError, match=message):
            overoptimisation.report(made, table, tmp_path, lambda line: None)


RECIPE = """
title = "small"
[study]
kind = "over-optimisation"
claim = "c"
temperature = 1.0
[[preset.tiny]]
stage = "passk"
name = "learnt"
model = "tiny-countdown"
split = "train"
limit = 12
n = 8
temperature = [1.0]
[[preset.tiny]]
stage = "fit-reranker"
name = "rm"
data = "@learnt"
model = "tiny-countdown"
epochs = 1
held_out = 0.0
[[preset.tiny]]
stage = "passk"
name = "drawn"
model = "tiny-countdown"
split = "test"
limit = 5
n = 12
temperature = [1.0]
[[preset.tiny]]
stage = "rewardbench"
name = "audit"
reranker = "@rm"
run = "@drawn"
at = [1, 4, 12]
[[preset.tiny]]
stage = "train"
name = "larpo"
model = "tiny-countdown"
reward = "@rm"
iterations = 1
prompts = 10
n = 4
epochs = 1
eval_split = "test"
eval_limit = 6
eval_n = 2
"""


@pytest.mark.slow
def test_a_recipe_fits_its_reranker_audits_it_and_trains_on_it(tmp_path):
    (tmp_path / "small.toml").write_text(RECIPE)
    made = recipe.load(str(tmp_path / "small.toml"), "tiny")
    out = run.run(made, tmp_path / "out", lambda line: None, seeds=(3,), jobs=1, store="none")
    steps = out / "seed-3"
    assert json.loads((steps / "5-larpo" / "manifest.json").read_text())["settings"]["reward"] == str(steps / "2-rm")
    table = pd.read_parquet(out / "per_problem.parquet")
    assert set(table["part"]) == {"final", "curve", "0", "1"} and (steps / "2-rm" / "model").is_dir()
    drawn = pd.read_csv(out / "small.csv").set_index(["panel", "curve", "x"])["value"]
    graded = pd.read_parquet(steps / "3-drawn" / "qrels.parquet")
    assert drawn["a", "true value of the pick", 1] == pytest.approx(graded["relevance"].mean())
    said = json.loads((out / "manifest.json").read_text())["conclusions"]
    run.run(made, out, (again := []).append, seeds=(3,), jobs=1, store="none")
    assert again[-len(said) :] == said


@pytest.mark.parametrize("before, after, message", [
    ('reranker = "@rm"', 'reranker = "@nm"', "reranker '@nm': no earlier stage of that name"),
    ('run = "@drawn"\n', "", "audit needs run, judged draws, and no data"),
    ('reward = "@rm"\n', "", "larpo needs a reward, beside which the truth is measured"),
    ("temperature = 1.0\n", "temperature = 0.7\n", "T = 0.7 is not one of larpo's eval_temperature"),
    ('claim = "c"\n', 'claim = "c"\nbetter = ["larpo > start"]\n', "has one policy: no order, better, also or beside"),
    ('stage = "rewardbench"', 'stage = "best-of-n"', "needs one stage rewardbench, and there are 0"),
    ("over-optimisation", "over-optimization", "did you mean 'over-optimisation'"),
])  # fmt: skip
def test_a_recipe_of_another_form_is_refused(tmp_path, before, after, message):
    path = tmp_path / "small.toml"
    path.write_text(RECIPE.replace(before, after, 1))
    with pytest.raises(UserError, match=message):
        recipe.load(str(path), "tiny")


def test_what_an_audit_and_a_reward_cost():
    steps = recipe.load("overoptimisation", "tiny").steps
    drawn, audit, trained = costs.of_steps(steps)
    assert drawn.draws == 100_000 and audit.cpu_minutes == pytest.approx(100_000 / costs.JUDGED / 60)
    held_out = 8 * 200 * 8
    seconds = (14_000 + held_out) * costs.TOKENS["countdown"][1] / costs.SPEED + 1750 * (
        costs.LIST + 4 * costs.CANDIDATE
    )
    assert trained.cpu_minutes == pytest.approx((seconds + (14_000 + held_out) / costs.JUDGED) / 60)
    _, audit, _ = costs.of_steps(recipe.load("overoptimisation", "paper").steps)
    assert audit.read == 200 * 1000 * 300
    assert audit.gpu_hours == pytest.approx(2 * 7_504_928_768 * audit.read / costs.READ / costs.PEAK / 3600)
