"""Judges compared: by hand, of what each bias is planted in, over orders and repeats, and as rankings by ir_measures."""

import gzip
import json
from itertools import product

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

import irlens
from irlens.base.errors import UserError
from irlens.measure import agreement, rankings, verdicts
from irlens.rerank.pair_protocols import is_switched

SYSTEMS = ("a", "b", "c")


@pytest.fixture(autouse=True)
def few_orders(monkeypatch):
    """Orders of ties, where nothing is said of them."""
    monkeypatch.setattr(rankings, "ORDERS", 2)


def rows(judge, prefer, prompts=30, systems=SYSTEMS, length=lambda i, s: 10 + i % 7 + 3 * s):
    """Annotations: `prefer(i, s)` of the i-th prompt and the s-th system."""
    return [
        {
            "instruction": f"Question {i}?",
            "output_1": "y" * 13,
            "output_2": "x" * length(i, s),
            "generator_2": system,
            "annotator": judge,
            "preference": prefer(i, s),
        }
        for (s, system), i in product(enumerate(systems), range(prompts))
    ]


def value(table, measure, **where):
    """The row of a measure."""
    for name, wanted in where.items():
        table = table[table[name] == wanted]
    (found,) = table[table["measure"] == measure].to_dict("records")
    return found


def test_two_judges_by_hand():
    """They differ in a tenth of the pairs; systems are in the same order, which τ says."""
    first = rows("first", lambda i, s: 2 if i % 3 <= s else 1)
    second = rows("second", lambda i, s: 1.5 if i % 10 == 0 else 2 if i % 3 <= s else 1)
    found = irlens.judges({"one": first, "two": second}, resamples=50)
    told = found.agreement
    assert set(told["judge"]) == {"first"} and set(told["against"]) == {"second"} and set(told["n"]) == {90}
    assert value(told, "agreement")["value"] == pytest.approx(0.9)
    a, b = ([f"{row['preference']:g}" for row in part] for part in (first, second))
    assert value(told, "kappa")["value"] == pytest.approx(cohen_kappa_score(a, b))
    assert value(told, "tau over systems")["value"] == 1.0
    counts = found.judges.set_index("judge")
    assert counts.loc["second", ["pairs", "prompts", "systems", "ties", "missing"]].tolist() == [90, 30, 3, 9, 0]
    assert value(found.bias, "ties", judge="second")["value"] == pytest.approx(0.1)


def test_a_judge_without_a_name_is_its_set_and_two_of_one_name_are_told_apart():
    some = rows(None, lambda i, s: 1 + i % 2)
    assert verdicts.gathered({"mine": some, "theirs": some}).judges == ["mine", "theirs"]
    named = rows("gpt", lambda i, s: 1 + i % 2)
    assert verdicts.gathered({"mine": named, "theirs": named}).judges == ["gpt (mine)", "gpt (theirs)"]
    assert verdicts.gathered({"both": [*named, *rows("other", lambda i, s: 2)]}).judges == ["gpt", "other"]


def test_of_many_judges_alpha_is_of_all_of_them():
    sets = {name: rows(name, lambda i, s, k=k: 1 + (i + k * (i % 5 == 0)) % 2) for k, name in enumerate("pqr")}
    told = irlens.judges(sets, resamples=0).agreement
    assert len(told) == 3 * 5 + 2 and value(told, "alpha, nominal", judge="all judges")["n"] == 90
    assert value(told, "kappa", judge="p", against="r")["value"] == 1.0 and told["low"].notna().any()


# -- position ------------------------------------------------------------------------------------------------------


def test_a_judge_who_takes_what_is_shown_first_is_found_by_the_published_order():
    """Without any word of the order in the file; where the order is not believed nothing is said."""
    biased = rows("biased", lambda i, s: 2 if is_switched(f"Question {i}?") else 1)
    fair = rows("fair", lambda i, s: 1 + (i * 7 + s) % 2)
    told = irlens.judges({"x": biased, "y": fair}, resamples=50).bias
    assert value(told, "first shown preferred", judge="biased")["value"] == 1.0
    assert value(told, "gain of the first place", judge="biased")["value"] == 1.0
    assert abs(value(told, "first shown preferred", judge="fair")["value"] - 0.5) < 0.1
    silent = irlens.judges({"x": biased, "y": fair}, resamples=0, order="none").bias
    assert not silent["measure"].str.contains("first").any()


def with_orders(judge, prefer, prompts=20):
    """Rows as a win rate in both orders keeps them: `prefer(i, turn)` is the preference where the order is so."""
    found = rows(judge, lambda i, s: np.mean([prefer(i, turn) for turn in (0, 1)]), prompts, ("a",))
    return [row | {"as_it_is": prefer(i, 0), "switched": prefer(i, 1)} for i, row in enumerate(found)]


def test_both_orders_by_hand():
    """Of 20 pairs 5 always for the first shown, 2 always for the second, the rest for the system both times."""
    prefer = lambda i, turn: (1, 2)[turn] if i < 5 else (2, 1)[turn] if i < 7 else 2  # noqa: E731
    told = irlens.judges({"x": with_orders("x", prefer), "y": with_orders("y", lambda i, turn: 2)}, resamples=50).bias
    told = {row["measure"]: row for row in told[told["judge"] == "x"].to_dict("records")}
    assert told["same winner in both orders"]["value"] == pytest.approx(13 / 20)
    assert told["first place in both orders"]["value"] == pytest.approx(5 / 20)
    assert told["second place in both orders"]["value"] == pytest.approx(2 / 20)
    assert told["first shown preferred"]["value"] == pytest.approx((5 * 2 + 13) / 40)
    assert told["win rate if shown first"]["value"] == pytest.approx(18 / 20)
    assert told["gain of the first place"]["value"] == pytest.approx(3 / 20)
    assert told["ties"]["value"] == pytest.approx(7 / 20)  # the mean of the two orders


def test_rerankers_and_equal_answers_were_shown_in_no_order():
    """What scores one answer at a time has no position; nor have answers about which nobody was asked."""
    scored = [row | {"reward_1": 0.0, "reward_2": 1.0} for row in rows("rm", lambda i, s: 2)]
    found = verdicts.gathered({"x": scored})
    assert set(found.each["switched"]) == {-1} and (found.margins == 1).all()
    same = [row | {"output_2": row["output_1"]} for row in rows("j", lambda i, s: 1.5)]
    assert set(verdicts.gathered({"x": same}).each["switched"]) == {-1}


# -- repeats -------------------------------------------------------------------------------------------------------


def test_what_a_file_judges_again_is_a_repeat():
    """A judge who says the same again in three quarters of the prompts; its preference is the mean."""
    once = rows("j", lambda i, s: 2, 20, ("a",))
    again = rows("j", lambda i, s: 1 if i % 4 == 0 else 2, 20, ("a",))
    found = irlens.judges({"x": [*once, *again], "y": rows("k", lambda i, s: 2, 20, ("a",))}, resamples=50)
    assert value(found.bias, "same again", judge="j")["value"] == pytest.approx(0.75)
    assert value(found.bias, "alpha of repeats", judge="j")["n"] == 20
    assert "same again" not in set(found.bias[found.bias["judge"] == "k"]["measure"])
    assert found.judges.set_index("judge").loc["j", ["repeated", "ties"]].tolist() == [20, 5]


def test_repeats_of_a_win_rate_are_of_one_order():
    """Verdicts of other orders are no repeats of one another: that is position, not consistency."""
    told = json.dumps([[0, 1.0], [1, 2.0], [0, 1.0], [1, 2.0]])
    some = [row | {"verdicts": told} for row in rows("j", lambda i, s: 1.5, 10, ("a",))]
    bias = irlens.judges({"x": some, "y": rows("k", lambda i, s: 1.5, 10, ("a",))}, resamples=0).bias
    assert value(bias, "same again", judge="j")["value"] == 1.0
    assert value(bias, "first place in both orders", judge="j") | {"low": 0, "high": 0} == {
        "judge": "j", "measure": "first place in both orders", "value": 1.0, "low": 0, "high": 0, "n": 20, "prompts": 10
    }  # fmt: skip


# -- length --------------------------------------------------------------------------------------------------------


def test_a_judge_of_length_and_one_of_quality():
    """Where the longer of two wins always, and where a good system's answers happen to be long."""
    rng = np.random.default_rng(0)
    chars = {(i, s): int(n) for (i, s), n in zip(product(range(200), range(3)), rng.integers(5, 40, 600))}
    length = lambda i, s: chars[i, s] + 10 * s  # noqa: E731
    coin = {key: rng.random() for key in chars}
    by_length = rows("long", lambda i, s: 1.5 + 0.5 * np.sign(length(i, s) - 13), 200, length=length)
    by_quality = rows("good", lambda i, s: 2 if coin[i, s] < (0.2, 0.5, 0.8)[s] else 1, 200, length=length)
    found = irlens.judges({"x": by_length, "y": by_quality}, ["length"], resamples=0)
    told = found.bias
    assert value(told, "longer preferred", judge="long")["value"] == 1.0
    long, good = (value(told, "slope of length", judge=name) for name in ("long", "good"))
    assert long["low"] > 3 and good["low"] < 0 < good["high"]
    assert value(found.agreement, "kappa", judge="long", against="length")["value"] == 1.0
    table = found.lengths[found.lengths["judge"] == "long"].sort_values("part")
    assert table["value"].is_monotonic_increasing and table["value"].iloc[-1] == 1 and table["n"].sum() == 600
    assert (table["least"] <= table["longer"]).all() and (table["longer"] <= table["most"]).all()


def test_the_slope_of_length_is_that_of_a_logistic_regression():
    """Planted in the chances of 20,000 wins, found within its interval."""
    from irlens.measure.length_bias import slope

    rng = np.random.default_rng(1)
    longer, system = rng.normal(0, 300, 20_000), rng.integers(0, 2, 20_000)
    odds = 1.5 * np.tanh(longer / longer.std(ddof=1)) + np.array([-1.0, 0.5])[system]
    wins = (rng.random(20_000) < 1 / (1 + np.exp(-odds))).astype(float)
    found = slope(wins, longer, system, np.arange(20_000) // 4)
    assert found.low < 1.5 < found.high and found.high - found.low < 0.3 and found.prompts == 5000


# -- rankings ------------------------------------------------------------------------------------------------------


def test_a_ranking_is_measured_by_ir_measures(monkeypatch):
    """Against nDCG of the preferences as they are, and RR of what beats the baseline; ties are the mean of their orders."""
    monkeypatch.setattr(rankings, "ORDERS", 10)
    rng = np.random.default_rng(0)
    chances = rng.random((30, 3))
    judged = rows("j", lambda i, s: 1 + chances[i, s])
    other = rows("k", lambda i, s: 1 + (i * 3 + s) % 2)
    found = irlens.judges({"x": judged, "y": other}, ["length"], measures="nDCG nDCG@1 RR", resamples=0).rankings
    lengths = np.array([[10 + i % 7 + 3 * s for s in range(3)] for i in range(30)])
    expected = np.mean([agreement.ndcg(a, b) for a, b in zip(lengths, chances)])
    assert value(found, "nDCG", run="length", judge="j")["value"] == pytest.approx(expected, abs=0.003)
    right = np.mean([agreement.reciprocal_rank(a, b > 0.5) for a, b in zip(lengths, chances)])
    assert value(found, "RR", run="length", judge="j")["value"] == pytest.approx(right, abs=1e-12)
    ties = np.array([[(i * 3 + s) % 2 for s in range(3)] for i in range(30)])
    shared = np.mean([agreement.reciprocal_rank(a, b > 0.5) for a, b in zip(ties, chances)])
    assert value(found, "RR", run="k", judge="j")["value"] == pytest.approx(shared, abs=0.05)
    assert value(found, "nDCG", run="oracle", judge="j")["value"] == pytest.approx(1, abs=1e-3)
    chance = np.mean([agreement.ndcg(np.zeros(3), b) for b in chances])
    assert value(found, "nDCG", run="chance", judge="j")["value"] == pytest.approx(chance, abs=0.02)
    assert len(found.per_query) == len(found) * 30 and set(found["n"]) == {30}


def test_one_system_is_no_list():
    found = irlens.judges({n: rows(n, lambda i, s: 1 + i % 2, systems=("a",)) for n in "pq"}, resamples=0)
    assert found.rankings is None and "tau over systems" not in set(found.agreement["measure"])


def test_wrong_measures_are_refused():
    with pytest.raises(UserError, match="no measure 'nDGC'"):
        rankings.parsed("nDGC@3")


# -- what is refused -----------------------------------------------------------------------------------------------


def test_what_cannot_be_compared_is_refused_in_words():
    some = rows("j", lambda i, s: 1 + i % 2)
    other = rows("k", lambda i, s: 2, 1) + [row | {"instruction": "What else?"} for row in rows("k", lambda i, s: 2, 1)]
    cases = {
        "agreement needs two judges, and there is j": {"x": some},
        "share 1 prompts with the same two answers: of 30 and 2 prompts 1 are the same": {"x": some, "y": other},
        "their systems have other names, such as 'a' and 'z'": {"x": some, "y": [r | {"generator_2": "z", "annotator": "k"} for r in some]},
        "of the same prompts and systems they judged other answers": {
            "x": some, "y": [r | {"output_1": "another", "annotator": "k"} for r in some]
        },
        "none of its 30 prompts has a preference": {"x": some, "y": rows("k", lambda i, s: None)},
        "not from 1 to 2": {"x": some, "y": rows("k", lambda i, s: 3)},
        "not a list of [switched, preference]": {"x": some, "y": [r | {"verdicts": "[1]"} for r in some]},
    }  # fmt: skip
    for told, sets in cases.items():
        with pytest.raises(UserError) as error:
            irlens.judges(sets)
        assert told in str(error.value), told
    with pytest.raises(UserError, match="says nothing about two answers"):
        irlens.judges({"x": some}, ["score"])


def test_missing_preferences_are_left_out_and_counted():
    """NaN, null and -1 of a judge: the pairs that both know are compared, and what one lacks is said."""
    said = []
    unsure = rows("k", lambda i, s: (np.nan, None, -1)[s] if i < 10 else 1 + i % 2, 25)
    found = verdicts.gathered({"x": rows("j", lambda i, s: 1 + i % 2), "y": unsure})
    verdicts.check(found, said.append)
    assert said == [
        "k: has nothing for 15 of 30 prompts (the first: 'Question 0?')", "k: 30 pairs have no preference: left out, and counted"
    ]  # fmt: skip
    told = irlens.judges({"x": rows("j", lambda i, s: 1 + i % 2), "y": unsure}, resamples=0)
    assert set(told.agreement["n"]) == {45} and value(told.agreement, "kappa")["value"] == 1.0


# -- real lists ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def published(real_data):
    """The first 80 prompts of the twelve systems, judged by AlpacaEval 2's judge."""
    from irlens.tasks import alpaca

    with gzip.open(real_data("alpaca/candidates.jsonl.gz"), "rt", encoding="utf-8") as lines:
        return alpaca.pairs([("", json.loads(line)) for _, line in zip(range(80), lines)])


def test_rerankers_on_the_lists_of_the_twelve_systems(published):
    """nDCG is that of `agreement` on the preferences as they are, and chance is below length below the judge itself."""
    found = irlens.judges({"gpt4": published}, ["length", "random"], resamples=20)
    table = found.rankings[found.rankings["measure"] == "nDCG"].set_index("run")["value"]
    lists = published.groupby("instruction", sort=False)
    exact = lists.apply(lambda part: agreement.ndcg(part["output_2"].str.len(), part["preference"] - 1))
    assert table["length"] == pytest.approx(exact.mean(), abs=0.003)
    assert table["chance"] < table["length"] < table["oracle"] == pytest.approx(1, abs=1e-3)
    assert abs(table["random"] - table["chance"]) < 0.1
    kappa = value(found.agreement, "kappa", judge="gpt4", against="random")
    assert abs(kappa["value"]) < 0.15 < value(found.agreement, "kappa", judge="gpt4", against="length")["value"]
