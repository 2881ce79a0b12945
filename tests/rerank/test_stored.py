"""Scores in the store: what is scored once is found in any cut, and for no other text, question or scorer."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from irlens.base import store as stores
from irlens.models.weights import runs_with
from irlens.rerank.scoring import ALONE, TOGETHER, MadeBy, score_in_shards
from irlens.rerank.stored import Stored

RUN = pd.DataFrame(
    [(q, f"{q}/{d}", "x" * (d + 1) + q, [d, 3], "stop", "m") for q in ("a", "b", "c") for d in range(4)],
    columns=["query_id", "doc_id", "text", "tokens", "finish_reason", "tag"],
)
BY = {"kind": "length", "model_digest": "weights"}
ASKED = {q: [{"role": "user", "content": f"question {q}"}] for q in "abc"}


@pytest.fixture
def score(tmp_path):
    """Scores a run into a new folder, with the store of all these folders or without, and says which rows were scored."""
    number = iter(range(10**6))

    def run(table=RUN, keyed=ALONE, store=True, made_by=BY, asked=ASKED, rows=4, factor=1.0, say=str):
        seen = []

        def scorer(some):
            seen.extend(some["doc_id"])
            return pd.DataFrame({"score": some["text"].str.len() * factor, "truncated": some["text"].str.len() > 3})

        folder = tmp_path / f"out-{next(number)}"
        with stores.use(tmp_path / "store" if store else None, say):
            found = score_in_shards(table, lambda: scorer, folder, "x", MadeBy(made_by, asked, keyed), rows)
        return found, seen, folder

    return run


@pytest.mark.parametrize("keyed", [ALONE, TOGETHER])
@pytest.mark.parametrize("rows", [4, 8, 100])
def test_another_folder_scores_nothing_again_in_any_cut(score, keyed, rows):
    alone, seen, folder = score(keyed=keyed, store=False, rows=rows)
    assert len(seen) == 12
    score(keyed=keyed)
    found, seen, again = score(keyed=keyed, rows=rows)
    assert seen == [] and found.equals(alone)
    assert [p.read_bytes() for p in sorted(again.iterdir())] == [p.read_bytes() for p in sorted(folder.iterdir())]


@pytest.mark.parametrize("keyed, again", [(ALONE, 3), (TOGETHER, 12)])
def test_more_candidates_of_a_query_score_the_new_ones_or_the_list(score, keyed, again):
    fewer = RUN[~RUN["doc_id"].str.endswith("3")]
    score(fewer, keyed)
    found, seen, _ = score(RUN, keyed)
    assert len(seen) == again
    pd.testing.assert_frame_equal(found, score(RUN, keyed, store=False)[0])


def test_a_list_is_found_whole_or_not_at_all(score):
    score(keyed=TOGETHER)
    fewer = RUN[~RUN["doc_id"].isin(["b/3"])]
    _, seen, _ = score(fewer, TOGETHER)
    assert seen == ["b/0", "b/1", "b/2"]
    assert score(fewer.assign(tag="n"), TOGETHER)[1]  # what competes is said by the tag
    assert score(fewer.assign(tag="n"), ALONE)[1] and score(fewer.assign(tag="o"), ALONE)[1] == []


def test_rows_in_another_order_get_their_own_scores(score):
    score(RUN)
    mixed = RUN.sample(frac=1, random_state=0)
    found, seen, _ = score(mixed)
    assert seen == [] and found["doc_id"].tolist() == mixed["doc_id"].tolist()
    assert found["score"].tolist() == mixed["text"].str.len().astype(float).tolist()


def test_a_scorer_without_a_name_by_content_is_not_kept(score):
    score(keyed=None)
    assert len(score(keyed=None)[1]) == 12


def test_scores_of_another_scorer_are_not_given(score):
    score(factor=1.0)
    found, seen, _ = score(made_by=BY | {"model_digest": "weightt"}, factor=10.0)
    assert len(seen) == 12 and (found["score"] >= 10).all()


def changed(text, place):
    """`text` with one byte changed."""
    raw = text.encode()
    return (raw[: place % len(raw)] + bytes([raw[place % len(raw)] ^ 1]) + raw[place % len(raw) + 1 :]).decode(
        "latin-1"
    )


def cell(column):
    return lambda at: {"table": RUN[:1].assign(**{column: changed(RUN[column][0], at)})}


CHANGES = {
    "text": cell("text"),
    "query_id": cell("query_id"),
    "finish_reason": cell("finish_reason"),
    "tokens": lambda at: {"table": RUN[:1].assign(tokens=[[0, 3 ^ (1 << at % 16)]])},
    "title": lambda at: {"table": RUN[:1].assign(title=str(at))},
    "weights": lambda at: {"made_by": BY | {"model_digest": changed("weights", at)}},
    "kind": lambda at: {"made_by": BY | {"kind": changed("length", at)}},
    "question": lambda at: {"asked": {"a": [{"role": "user", "content": changed("question a", at)}]}},
    "role": lambda at: {"asked": {"a": [{"role": changed("user", at), "content": "question a"}]}},
}


@pytest.fixture
def kept(score, tmp_path):
    """A store that holds the scores of the first row, alone and as a list of one."""
    for keyed in (ALONE, TOGETHER):
        score(RUN[:1], keyed)
    with stores.Store(tmp_path / "store") as store:
        yield store


def name_of(made_by):
    return json.dumps([made_by, runs_with()], sort_keys=True, default=repr)


def answered(store, keyed, table=RUN[:1], made_by=BY, asked=ASKED):
    return len(store.fetch(Stored(store, name_of(made_by), asked, keyed, "x").keys(table)))


@given(what=st.sampled_from(sorted(CHANGES)), at=st.integers(0, 10**6), keyed=st.sampled_from([ALONE, TOGETHER]))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_one_changed_byte_anywhere_misses(kept, what, at, keyed):
    assert answered(kept, keyed) == 1
    assert answered(kept, keyed, **CHANGES[what](at)) == 0


def test_a_run_read_back_from_disk_is_found(score, tmp_path):
    tokens = [None if i == 3 else [i, np.int64(2)] for i in range(len(RUN))]
    run = RUN.assign(tokens=tokens, finish_reason=[None, "stop"] * 6)
    score(run)
    run.to_parquet(tmp_path / "run.parquet")
    assert score(pd.read_parquet(tmp_path / "run.parquet"))[1] == []


def test_one_of_two_scores_what_both_need(score, tmp_path):
    """While another process scores a query, the others are scored, and that one is awaited."""
    with stores.Store(tmp_path / "store") as other:
        with stores.use(tmp_path / "store") as mine:
            keys = Stored(mine, name_of(BY), ASKED, ALONE, "x").keys(RUN[:4])
            assert other.claim(sorted({(k, n, n + 1) for k, n in keys}))
            seen, waited = [], []

            def scorer(some):
                seen.extend(some["doc_id"])
                return some["text"].str.len().to_numpy()

            def wait():
                waited.append(list(seen))
                other.release([(k, n, n + 1) for k, n in keys])

            mine.wait = wait
            found = score_in_shards(RUN, lambda: scorer, tmp_path / "out", "x", MadeBy(BY, ASKED, ALONE), 4)
    assert waited == [[f"{q}/{d}" for q in "bc" for d in range(4)]] and seen[-4:] == [f"a/{d}" for d in range(4)]
    assert found["doc_id"].tolist() == RUN["doc_id"].tolist()
