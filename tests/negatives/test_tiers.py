"""Mining in a notebook: lists by tier from a run and its judgements, and what is refused."""

import pandas as pd
import pytest

import irlens
from irlens import tables
from irlens.base.errors import UserError
from irlens.negatives import mine, tiers
from irlens.negatives.margin import Bound
from irlens.negatives.mine import Rules

DRAWS = pd.DataFrame(
    {
        "query": ["1 + 1?"] * 4 + ["2 + 2?"] * 4,
        "text": ["is 2", "is 3", "is 4", "is 5", "so 4", "so 7", "so 8", "so 9"],
        "temperature": [1.0, 1.0, 0.5, 0.5] * 2,
        "right": [1, 0, 0, 0] * 2,
        "finish_reason": "stop",
    }
)
SOLUTIONS = {"1 + 1?": "it is 2", "2 + 2?": "it is 4"}


@pytest.fixture
def run():
    """Four draws of each of two prompts: the first two hot, the others cold; the first of each is right."""
    return irlens.run(DRAWS)


@pytest.fixture
def qrels(run):
    return run[["query_id", "doc_id"]].assign(relevance=run["right"])


def texts(mined):
    return {tier: set(texts) for tier, texts in mined.lists.groupby("tier")["text"]}


def test_a_run_and_its_judgements_give_lists_by_tier(run, qrels):
    before = run.copy()
    mined = irlens.mine(run, qrels, tiers=("hard", "hardest", "easy"))
    assert dict(zip(mined.report["tier"], mined.report["meaning"])).items() <= tiers.TIERS.items()
    assert texts(mined) == {
        "positive": {"is 2", "so 4"},
        "hard": {"is 3", "so 7"},
        "hardest": {"is 4", "so 8"},
        "easy": {"so 4", "is 2"},
    }
    assert tables.check(mined.lists, "lists") is not None and mined.skipped.empty
    assert mined.report.set_index("tier")["used"].to_dict() == {"hard": 2, "hardest": 2, "easy": 2}
    pd.testing.assert_frame_equal(run, before)


def test_rewards_judge_where_nothing_else_does(run):
    scored = irlens.run(DRAWS.assign(score=[0.1, 0.9, 0.5, 0.2, 3.0, 2.0, 1.0, 0.0]))
    mined = irlens.mine(scored, None, "near-miss,margin", Rules(bound=Bound("reward", margin=2.5)))
    assert texts(mined) == {"positive": {"is 3", "so 4"}, "near-miss": {"is 4", "so 7"}, "margin": {"so 9"}}


def test_gold_solutions_are_positives_where_topics_have_them(run, qrels):
    topics = run[["query_id", "query"]].drop_duplicates()
    topics = topics.assign(solution=topics["query"].map(SOLUTIONS))
    mined = irlens.mine(run, qrels, ["hard"], topics=topics, positives_from="both")
    assert texts(mined) == {
        "positive": {"it is 2", "is 2", "it is 4", "so 4"},
        "hard": {"is 3", "so 7"},
    }


@pytest.mark.parametrize(
    "change, more, message",
    [
        ({}, {"tiers": ("hard", "hrad")}, "unknown tier 'hrad'; did you mean 'hard'"),
        ({}, {"tiers": "easiest"}, "tier easiest: needs draws of another data set"),
        ({"temperature": 1.0}, {"tiers": "hardest"}, "needs draws at two temperatures"),
        ({"query": None}, {}, "the run does not say its prompts"),
        ({}, {"positives_from": "gold"}, "has no solutions; use --positives-from own"),
        ({}, {"positives_from": "golden"}, "did you mean 'gold'"),
        ({}, {"tiers": "near-miss"}, "tier near-miss: candidates have no reward"),
    ],
)
def test_what_can_not_be_mined_is_refused(run, qrels, change, more, message):
    run = run.assign(**change)
    with pytest.raises(UserError, match=message):
        irlens.mine(run.drop(columns="query") if "query" in change else run, qrels, **more)


def test_no_right_draw_and_no_reward_leave_no_positive(run, qrels):
    with pytest.raises(UserError, match="none of the 2 prompts has a right draw"):
        irlens.mine(run, qrels.assign(relevance=0), "hard")
    with pytest.raises(UserError, match="the rewards choose the positives, and the draws have none"):
        irlens.mine(run, None, "hard")


def test_the_highest_reward_is_the_positive_but_of_finished_draws():
    run = pd.DataFrame(
        {
            "query_id": ["a", "a", "a", "b"],
            "doc_id": ["a2", "a1", "a0", "b0"],
            "text": ["cut", "first", "second", " "],
            "reward": [9.0, 1.0, 1.0, 5.0],
            "finish_reason": ["length", "stop", "stop", "stop"],
        }
    )
    assert tiers.best_rewarded(run)["doc_id"].tolist() == ["a0"]


def test_what_is_judged_right_or_rewarded_as_the_positive_is_no_negative(run, qrels):
    found = run.groupby("query_id", sort=False).head(1)
    both = qrels.assign(relevance=[1, 1, 0, 0, 1, 0, 0, 0])
    judged = mine._screen(run, both, found)(run)
    assert judged.tolist() == ["right answer" if right else "" for right in both["relevance"]]
    rewarded = run.assign(reward=[2.0, 3.0, 2.0, 1.9, 0.5, 0.6, 0.5, -1.0])
    kept = rewarded.groupby("query_id", sort=False).head(1)
    reasons = mine._screen(rewarded, None, kept)(rewarded.drop(index=kept.index))
    assert reasons.map(bool).tolist() == [True, True, False, True, True, False]
