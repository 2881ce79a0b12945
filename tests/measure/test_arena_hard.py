"""Arena-Hard's scores: games by hand, the Bradley–Terry fit beside another optimiser's, marks of style, what is refused."""

import numpy as np
import pandas as pd
import pytest

import irlens
from irlens.base.errors import UserError
from irlens.measure import arena_hard
from irlens.tables.formats import arena_hard as layout

VALUES = list(layout.TOLD)


def pairs(verdicts, run="a", category="hard_prompt", judge="j"):
    """Rows of one system: (first game, second game), each from 1 (the baseline's answer is much better) to 2."""
    rows = [(f"{i}", category, judge, run, "base", *games, "") for i, games in enumerate(verdicts)]
    return pd.DataFrame(rows, columns=list(layout.GAMES))


def many(seed, systems=4, n=60):
    """Systems of other strengths and styles, whose judge likes length."""
    rng, parts = np.random.default_rng(seed), []
    for s in range(systems):
        part = pairs(np.full((n, 2), 1.5), f"s{s}")
        for name, size in zip(layout.STYLE, (400, 3, 6, 4)):
            spread = rng.lognormal(0, 0.8, (2, n))
            part[f"{name}_1"], part[f"{name}_2"] = rng.poisson(size * spread * [[1], [0.5 + s / 2]]).astype(float)
        lean = (part["length_2"] - part["length_1"]) / (part["length_2"] + part["length_1"])
        odds = (s - 1.5) / 2 + 2 * lean.to_numpy()[:, None] + rng.logistic(size=(n, 2))
        verdict = np.digitize(odds, (-2, -0.4, 0.4, 2))
        part[["as_it_is", "switched"]] = np.array(VALUES)[verdict]
        parts.append(part.assign(style="tokens"))
    return pd.concat(parts, ignore_index=True)


def test_much_better_counts_three_games_and_a_tie_half():
    """Won: 3 + 1 of the first question, a half of two games, none of 3 + 1; of 10 games in all."""
    found = irlens.arena_hard(pairs([(2.0, 1.75), (1.5, 1.5), (1.0, 1.25)]))
    (row,) = found.to_dict("records")
    assert row["measure"] == "WinRate:hard_prompt" and row["value"] == pytest.approx((4 + 1 + 0) / 10)
    assert row["low"] < row["value"] < row["high"] and (row["n"], row["missing"]) == (3, 0)
    assert found.per_query["value"].mean() == pytest.approx(row["value"])


def test_a_question_that_counts_for_more_games_is_no_better_for_it():
    """Of questions that are all won, all add the same, whether they count for two games or for six."""
    found = irlens.arena_hard(pairs([(2.0, 2.0), (1.75, 1.75), (2.0, 1.75)])).per_query
    assert found["value"].tolist() == [1, 1, 1]


def test_a_question_without_both_verdicts_is_counted_not_drawn():
    (row,) = irlens.arena_hard(pairs([(2.0, 2.0), (np.nan, 2.0), (1.0, np.nan), (1.5, 1.5)])).to_dict("records")
    assert (row["n"], row["missing"]) == (2, 2) and row["value"] == pytest.approx(7 / 8)


def test_a_category_without_any_verdict_is_nan_and_the_others_stay():
    both = pd.concat([pairs([(2.0, 2.0), (1.5, 1.5)]), pairs([(np.nan, 2.0)], category="poems").assign(uid="p")])
    found = irlens.arena_hard(both).set_index("measure")
    assert found.loc["WinRate:poems", ["n", "missing"]].tolist() == [0, 1] and np.isnan(
        found.loc["WinRate:poems", "value"]
    )
    assert found.loc["WinRate:hard_prompt", "n"] == 2


def test_the_fit_is_the_maximum_likelihood():
    """Beside scipy's optimiser on exploded games, as the authors' code has them: a row a game, `>>` three rows."""
    from scipy.optimize import minimize

    some = many(0)
    raw, (wins, games) = arena_hard.features(some), arena_hard.outcomes(some)
    times = games.T.ravel()
    rows = np.repeat(np.tile(np.arange(len(some)), 2), times)
    outcome, style = np.repeat(wins.T.ravel(), times), raw[rows]
    style = (style - style.mean(axis=0)) / style.std(axis=0, ddof=1)
    who = np.eye(4)[np.unique(some["generator_2"], return_inverse=True)[1][rows]]
    x = np.c_[who, style]

    def loss(weights):
        odds = x @ weights
        return np.logaddexp(0, odds).sum() - (outcome * odds).sum(), x.T @ (1 / (1 + np.exp(-odds)) - outcome)

    best = minimize(loss, np.full(8, 0.5), jac=True, method="BFGS", options={"gtol": 1e-9}).x
    results, slopes = arena_hard.scores(some, resamples=0)
    ours = results[results["measure"] == "SCWinRate:hard_prompt"]["value"].to_numpy()
    assert ours == pytest.approx(1 / (1 + np.exp(-best[:4])), abs=1e-6)
    assert slopes["coefficient"].to_numpy() == pytest.approx(best[4:], abs=1e-5)
    equal = -raw[rows].mean(axis=0) / raw[rows].std(axis=0, ddof=1)
    same = results[results["measure"] == "EqualStyleWinRate:hard_prompt"]["value"].to_numpy()
    assert same == pytest.approx(1 / (1 + np.exp(-best[:4] - equal @ best[4:])), abs=1e-6)


def test_style_control_takes_the_length_out():
    """The judge likes length: the longest system loses by control, the shortest wins; the strengths keep their order."""
    results, slopes = arena_hard.scores(many(1, n=200), resamples=20)
    by = {name: some.set_index("run") for name, some in results.groupby(results["measure"].str.partition(":")[0])}
    moved = by["SCWinRate"]["value"] - by["WinRate"]["value"]
    assert moved["s0"] > 0.02 and moved["s3"] < -0.02 and by["SCWinRate"]["value"].is_monotonic_increasing
    assert slopes.set_index("feature").loc["length", "coefficient"] > 0.1
    assert (by["SCWinRate"]["low"] < by["SCWinRate"]["value"]).all() and (by["SCWinRate"]["high"] < 1).all()


def test_one_system_is_controlled_only_at_the_baselines_style():
    """At its own average style there is nothing to take out; at the baseline's there is."""
    one = many(1, n=200).query("generator_2 == 's3'")
    results, _ = arena_hard.scores(one, resamples=0)
    plain, own, equal = results["value"]
    assert own == pytest.approx(plain, abs=0.04) and equal < plain - 0.05


def test_as_the_authors_have_it_values_are_of_resampled_games():
    some = many(2)
    ours, theirs = (
        irlens.arena_hard(some, parity=p, resamples=200).set_index(["run", "measure"]) for p in (False, True)
    )
    assert (ours["value"] - theirs["value"]).abs().max() < 0.01
    plain = [key for key in theirs.index if key[1].startswith("WinRate")]
    assert (theirs["high"] - theirs["low"])[plain].max() < (ours["high"] - ours["low"])[plain].min()  # 90 %, of games
    again = irlens.arena_hard(some, parity=True, resamples=200).set_index(["run", "measure"])
    assert again.equals(theirs) and not irlens.arena_hard(some, parity=True, seed=1, resamples=200).equals(theirs)


def test_a_system_that_always_wins_is_finite():
    some = many(3)
    some.loc[some["generator_2"] == "s3", ["as_it_is", "switched"]] = 2.0
    results, _ = arena_hard.scores(some, resamples=10)
    won = results[results["run"] == "s3"].set_index("measure")
    assert won.loc["WinRate:hard_prompt", "value"] == 1 and won.loc["SCWinRate:hard_prompt", "value"] > 0.99
    assert np.isfinite(results[["value", "low", "high"]].to_numpy(dtype=float)).all()


def test_marks_of_style():
    """Headers, items and bold words at their places, none inside of fenced code."""
    text = "# A\n### B\n#no\n1. one\n  - two\n* three\n-no\n**b** and __c__\n```\n# code\n- x\n**y**\n```\n"
    found = arena_hard.marks(text)
    assert found == {"length": len(text), "headers": 2, "lists": 3, "bolds": 2}


def test_style_is_counted_by_one_rule_for_all_answers():
    """Metadata where every answer has some; else from the texts of all."""
    some = pairs([(1.5, 1.5)])
    rows = [("0", "base", "xx", 10.0, 1.0, 0.0, 0.0), ("0", "a", "# x", 30.0, 0.0, 0.0, 0.0)]
    answers = pd.DataFrame(rows, columns=["uid", "model", "output", *layout.STYLE])
    told = arena_hard.styled(some, answers).iloc[0]
    assert (told["length_1"], told["length_2"], told["style"]) == (10, 30, "tokens")
    counted = arena_hard.styled(some, answers.assign(length=[np.nan, 30.0])).iloc[0]
    assert (counted["length_1"], counted["length_2"], counted["headers_2"], counted["style"]) == (2, 3, 1, "characters")


def test_what_is_refused():
    good = pairs([(1.5, 1.5), (1.0, 1.0)])
    cases = {
        "judgements: no rows": good[:0],
        "missing: switched": good.drop(columns="switched"),
        "must be one of 1.0, 1.25": good.assign(switched=1.3),
        "question 0 is judged twice": pd.concat([good, good[:1]]),
        "none of 2 questions has two verdicts": good.assign(switched=np.nan),
    }
    for told, frame in cases.items():
        with pytest.raises(UserError, match=told):
            irlens.arena_hard(frame)
