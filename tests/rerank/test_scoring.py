"""What rerankers share: shards that survive, ties that stay visible, and what is refused."""

import numpy as np
import pandas as pd
import pytest

from irlens.base.errors import UserError
from irlens.rerank import baselines as plain
from irlens.rerank import scoring
from irlens.rerank.scoring import MadeBy, batches, conversations, need_texts, reranked, score_in_shards

RUN = pd.DataFrame(
    [(q, f"{q}/{d}", -float(d), d, "x" * (d + 1), "m") for q in ("a", "b", "c") for d in range(4)],
    columns=["query_id", "doc_id", "score", "rank", "text", "tag"],
)

BY = {"kind": "length"}
ASKED = {"a": [{"role": "user", "content": "1+1?"}]}


def lengths(rows):
    return rows["text"].str.len().to_numpy()


def test_whole_queries_make_shards_and_those_there_are_kept(tmp_path):
    seen = []

    def scorer(rows):
        seen.append(rows["query_id"].unique().tolist())
        return pd.DataFrame({"score": lengths(rows), "truncated": False})

    found = score_in_shards(RUN, lambda: scorer, tmp_path, "x", rows=8, made_by=MadeBy(BY))
    assert seen == [["a", "b"], ["c"]] and found["score"].tolist() == [1, 2, 3, 4] * 3
    assert len(list(tmp_path.iterdir())) == 2
    next(tmp_path.glob("000001-*")).unlink()
    again = score_in_shards(RUN, lambda: scorer, tmp_path, "x", rows=8, made_by=MadeBy(BY))
    assert seen[2:] == [["c"]] and again.equals(found)
    score_in_shards(RUN, lambda: pytest.fail("loaded"), tmp_path, "x", rows=8, made_by=MadeBy(BY))


def test_rows_come_back_in_the_runs_order_when_queries_are_mixed(tmp_path):
    mixed = RUN.sample(frac=1, random_state=0)
    found = score_in_shards(mixed, lambda: lengths, tmp_path, "x", rows=4, made_by=MadeBy(BY))
    assert found["doc_id"].tolist() == mixed["doc_id"].tolist()
    assert found["score"].tolist() == mixed["text"].str.len().tolist()


def test_a_score_that_is_not_finite_costs_only_its_shard(tmp_path):
    def scorer(rows):
        return np.where(rows["doc_id"] == "b/2", np.nan, 1.0)

    with pytest.raises(UserError, match="x: score not finite for query_id=b, doc_id=b/2"):
        score_in_shards(RUN, lambda: scorer, tmp_path, "x", rows=4, made_by=MadeBy(BY))
    assert [path.name[:7] for path in tmp_path.iterdir()] == ["000000-"]


def length_and_model(weights):
    return lambda: lambda rows: lengths(rows) * weights


@pytest.mark.parametrize(
    "change",
    [
        {"run": RUN.assign(text=RUN["text"] + "y")},  # the same identifiers, other texts
        {"run": RUN.assign(text=RUN["text"].tolist()[::-1])},  # the same texts, in another order
        {"run": RUN.assign(doc_id=RUN["doc_id"].str.upper())},
        {"run": RUN.assign(title="t")},
        {"run": RUN.assign(finish_reason="length")},
        {"run": RUN.assign(tokens=[np.array([i]) for i in range(len(RUN))])},
        {"made_by": MadeBy(BY | {"model": "other weights"}, ASKED)},
        {"made_by": MadeBy(BY, {"a": [{"role": "user", "content": "2+2?"}]})},
    ],
    ids=["texts", "order", "names", "titles", "endings", "tokens", "weights", "question"],
)
def test_a_folder_never_answers_for_other_texts_or_another_scorer(tmp_path, change):
    told = []
    first = {"run": RUN, "made_by": MadeBy(BY, ASKED), "say": told.append, "rows": 4}
    old = score_in_shards(first.pop("run"), length_and_model(1), tmp_path, "x", **first)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    new = {"run": RUN, **first, **change}
    found = score_in_shards(new.pop("run"), length_and_model(10), tmp_path, "x", **new)
    asked = change.get("made_by", first["made_by"]).asked
    changed = found["query_id"] == "a" if asked != ASKED else slice(None)  # only what asks otherwise is scored anew
    assert (found["score"] >= 10)[changed].all()
    assert len(told) == 1 and "hold scores of other texts or by another scorer; kept, and not read" in told[0]
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    again = score_in_shards(RUN, lambda: pytest.fail("loaded"), tmp_path, "x", **first)
    pd.testing.assert_frame_equal(again, old)


def test_a_run_read_back_from_disk_is_the_same_content(tmp_path):
    tokens = [None if i == 3 else [i, np.int64(2)] for i in range(len(RUN))]
    run = RUN.assign(tokens=tokens, finish_reason=[None, "stop"] * 6)
    run.to_parquet(tmp_path / "run.parquet")
    found = score_in_shards(run, lambda: lengths, tmp_path / "s", "x", made_by=MadeBy(BY))
    run = pd.read_parquet(tmp_path / "run.parquet")
    again = score_in_shards(run, lambda: pytest.fail("loaded"), tmp_path / "s", "x", made_by=MadeBy(BY))
    assert again["score"].tolist() == found["score"].tolist()


def test_files_without_a_content_in_their_name_are_not_read(tmp_path):
    RUN[["query_id", "doc_id"]].assign(score=99.0).to_parquet(tmp_path / "000000.parquet")
    told = []
    found = score_in_shards(RUN, lambda: lengths, tmp_path, "x", made_by=MadeBy(BY), say=told.append)
    assert found["score"].tolist() == [1, 2, 3, 4] * 3 and "1 files hold scores of other texts" in told[0]


def test_a_broken_shard_is_scored_again_with_a_line(tmp_path):
    whole, said = score_in_shards(RUN, lambda: lengths, tmp_path, "x", rows=4, made_by=MadeBy(BY)), []
    first, second, _ = sorted(tmp_path.iterdir())
    first.write_bytes(second.read_bytes())
    assert score_in_shards(RUN, lambda: lengths, tmp_path, "x", rows=4, made_by=MadeBy(BY), say=said.append).equals(
        whole
    )
    assert len(said) == 1 and "holds scores of other rows: deleted" in said[0]
    first.write_bytes(b"PAR1")
    assert score_in_shards(RUN, lambda: lengths, tmp_path, "x", rows=4, made_by=MadeBy(BY), say=said.append).equals(
        whole
    )
    assert len(said) == 2 and "a shard that cannot be read" in said[1]


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


def test_long_texts_make_smaller_shards_of_whole_queries(tmp_path, monkeypatch):
    """Short ones are cut by their rows alone; a query whose texts exceed a shard's characters is one of its own."""
    long = RUN.assign(text=[("x" * (900 if query == "b" else 100)) for query in RUN["query_id"]])
    monkeypatch.setattr(scoring, "CHARACTERS", 2000)
    seen = []

    def scorer(rows):
        seen.append("".join(rows["query_id"].unique()))
        return lengths(rows)

    found = score_in_shards(long, lambda: scorer, tmp_path, "x", made_by=MadeBy(BY))
    assert seen == ["a", "b", "c"] and found["score"].tolist() == long["text"].str.len().tolist()
    seen.clear()
    score_in_shards(RUN, lambda: scorer, tmp_path / "short", "x", rows=8, made_by=MadeBy(BY))
    assert seen == ["ab", "c"]
    monkeypatch.setattr(scoring, "CHARACTERS", 800)
    seen.clear()
    score_in_shards(long[long["query_id"] != "b"], lambda: scorer, None, "x", made_by=MadeBy(BY))
    assert seen == ["ac"], "exactly as many characters fit"
