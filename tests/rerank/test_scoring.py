"""What rerankers share: shards that survive, ties that stay visible, and what is refused."""

import numpy as np
import pandas as pd
import pytest

from irlens.errors import UserError
from irlens.rerank import plain
from irlens.rerank.scoring import batches, conversations, need_texts, reranked, score_in_shards

RUN = pd.DataFrame(
    [(q, f"{q}/{d}", -float(d), d, "x" * (d + 1), "m") for q in ("a", "b", "c") for d in range(4)],
    columns=["query_id", "doc_id", "score", "rank", "text", "tag"],
)


def lengths(rows):
    return rows["text"].str.len().to_numpy()


def test_whole_queries_make_shards_and_those_there_are_kept(tmp_path):
    seen = []

    def scorer(rows):
        seen.append(rows["query_id"].unique().tolist())
        return pd.DataFrame({"score": lengths(rows), "truncated": False})

    found = score_in_shards(RUN, lambda: scorer, tmp_path, "x", rows=8)
    assert seen == [["a", "b"], ["c"]] and found["score"].tolist() == [1, 2, 3, 4] * 3
    assert len(list(tmp_path.iterdir())) == 2
    (tmp_path / "000001.parquet").unlink()
    again = score_in_shards(RUN, lambda: scorer, tmp_path, "x", rows=8)
    assert seen[2:] == [["c"]] and again.equals(found)
    score_in_shards(RUN, lambda: pytest.fail("loaded"), tmp_path, "x", rows=8)


def test_rows_come_back_in_the_runs_order_when_queries_are_mixed(tmp_path):
    mixed = RUN.sample(frac=1, random_state=0)
    found = score_in_shards(mixed, lambda: lengths, tmp_path, "x", rows=4)
    assert found["doc_id"].tolist() == mixed["doc_id"].tolist()
    assert found["score"].tolist() == mixed["text"].str.len().tolist()


def test_a_score_that_is_not_finite_costs_only_its_shard(tmp_path):
    def scorer(rows):
        return np.where(rows["doc_id"] == "b/2", np.nan, 1.0)

    with pytest.raises(UserError, match="x: score not finite for query_id=b, doc_id=b/2"):
        score_in_shards(RUN, lambda: scorer, tmp_path, "x", rows=4)
    assert [path.name for path in tmp_path.iterdir()] == ["000000.parquet"]


def test_a_shard_of_other_rows_or_a_broken_one_is_refused(tmp_path):
    score_in_shards(RUN, lambda: lengths, tmp_path, "x", rows=4)
    with pytest.raises(UserError, match="holds scores of other rows"):
        score_in_shards(RUN.assign(doc_id=RUN["doc_id"] + "!"), lambda: lengths, tmp_path, "x", rows=4)
    (tmp_path / "000000.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match="a shard that cannot be read"):
        score_in_shards(RUN, lambda: lengths, tmp_path, "x", rows=4)


def test_reranked_orders_each_tag_and_keeps_the_scores_before_ties_were_broken():
    run = pd.concat([RUN.assign(tag="s"), RUN.assign(tag="t", doc_id=RUN["doc_id"] + "t")])
    new = reranked(run, np.tile([1.0, 3.0, 3.0, 2.0], 6), "new")
    first = new[(new["query_id"] == "a") & (new["tag"] == "s, new")]
    assert first["doc_id"].tolist() == ["a/2", "a/1", "a/3", "a/0"] and first["rank"].tolist() == [0, 1, 2, 3]
    assert first["reward"].tolist() == [3.0, 3.0, 2.0, 1.0] and first["score"].is_unique
    assert run["score"].tolist() == [0.0, -1.0, -2.0, -3.0] * 6


def test_random_depends_on_seed_and_names_only():
    scores = plain.random_scores(RUN, 0)
    assert ((scores >= 0) & (scores < 1)).all() and len(set(scores)) == len(RUN)
    assert plain.random_scores(RUN.iloc[::-1], 0).tolist() == scores[::-1].tolist()
    assert not np.array_equal(plain.random_scores(RUN, 1), scores)


def test_recorded_likelihood_and_length():
    run = RUN.assign(logprob=-3.0, n_tokens=6)
    assert plain.recorded_likelihood(run, False).tolist() == [-3.0] * 12
    assert plain.recorded_likelihood(run, True).tolist() == [-0.5] * 12
    assert plain.recorded_likelihood(run.assign(logprob=[np.nan] + [-3.0] * 11), True) is None
    assert plain.recorded_likelihood(RUN, True) is None
    assert plain.length_scores(RUN).tolist() == [1, 2, 3, 4] * 3


def test_a_run_without_texts_is_refused():
    with pytest.raises(UserError, match="length reads the candidates, but the run has no column text"):
        plain.length_scores(RUN.drop(columns="text"))
    with pytest.raises(UserError, match="query_id=a, doc_id=a/1: text is missing"):
        need_texts(RUN.assign(text=["x", None] * 6), "x")


def test_batches_hold_similar_lengths_within_the_budget():
    found = list(batches([5, 1, 9, 3, 2], None, tokens=10))
    assert found == [[2], [0, 3], [4, 1]]
    assert list(batches([5, 1, 9], 2)) == [[2, 0], [1]]
    assert list(batches([50], None, tokens=10)) == [[0]]


def test_a_conversation_is_the_topics_own_or_its_query_and_the_instruction():
    topics = pd.DataFrame({"query_id": ["a"], "query": ["1+1?"]})
    assert conversations(topics, "Say N.") == {"a": [{"role": "user", "content": "1+1?\n\nSay N."}]}
    own = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    assert conversations(topics.assign(messages=[own]), "Say N.") == {"a": own}
