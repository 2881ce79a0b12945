"""The second stage: a cross-encoder's order, what it leaves alone, and that a kill costs one shard."""

import numpy as np
import pandas as pd
import pytest

from irlens.base.errors import UserError
from irlens.rerank import cross_encoder

BY = {"model": "random"}


@pytest.fixture(scope="module")
def folder(save_classifier, tmp_path_factory):
    """A cross-encoder with random weights."""
    from sentence_transformers import CrossEncoder

    plain, path = save_classifier(tmp_path_factory.mktemp("plain"), 128), tmp_path_factory.mktemp("cross")
    CrossEncoder(str(plain), device="cpu").save_pretrained(str(path))
    return path


@pytest.fixture
def run_and_topics():
    topics = pd.DataFrame({"query_id": ["q1", "q2", "q3"], "query": ["where is it", "who was she", "what is this"]})
    rows = [(q, f"d{d}", -float(d), d, f"passage {d} about {q}", "bm25") for q in topics["query_id"] for d in range(8)]
    run = pd.DataFrame(rows, columns=["query_id", "doc_id", "score", "rank", "text", "tag"])
    return run.assign(title="A title"), topics


def test_the_order_is_plain_predicts_and_the_rest_stays_below(tmp_path, folder, run_and_topics):
    run, topics = run_and_topics
    ours, cut = cross_encoder.rerank(
        lambda: cross_encoder.load(folder), run, topics, 5, tmp_path, "two stages", made_by=BY
    )
    assert cut == 0
    model = cross_encoder.load(folder)
    for query_id, query in zip(topics["query_id"], topics["query"]):
        old, new = run[run["query_id"] == query_id], ours[ours["query_id"] == query_id]
        scores = model.predict([(query, f"A title {text}") for text in old["text"][:5]], show_progress_bar=False)
        expected = [old["doc_id"].iloc[i] for i in np.argsort(-scores)] + ["d5", "d6", "d7"]
        assert new["doc_id"].tolist() == expected and new["rank"].tolist() == list(range(8))
        assert new["score"].to_numpy()[:5] == pytest.approx(np.sort(scores)[::-1], abs=1e-5)
    assert set(ours["tag"]) == {"two stages"}


def test_shards_are_kept(tmp_path, folder, run_and_topics, monkeypatch):
    monkeypatch.setattr(cross_encoder, "PAIRS", 10)
    run, topics = run_and_topics
    whole, _ = cross_encoder.rerank(lambda: cross_encoder.load(folder), run, topics, 5, tmp_path, "x", made_by=BY)
    assert len(list(tmp_path.glob("*.parquet"))) == 2
    next(tmp_path.glob("000001-*")).unlink()
    again, _ = cross_encoder.rerank(lambda: cross_encoder.load(folder), run, topics, 5, tmp_path, "x", made_by=BY)
    pd.testing.assert_frame_equal(whole, again)
    cross_encoder.rerank(lambda: pytest.fail("loaded"), run, topics, 5, tmp_path, "x", made_by=BY)


def test_a_pair_longer_than_the_model_reads_is_counted(tmp_path, folder, run_and_topics):
    run, topics = run_and_topics
    model = cross_encoder.load(folder)
    run.loc[0, "text"] = run.loc[9, "text"] = "where is it " * 100
    found = cross_encoder.scorer(model, topics)(run)
    assert found["truncated"].tolist() == [i in (0, 9) for i in range(len(run))]
    query, text = topics["query"][0], "A title " + run["text"][0]
    ids = model.tokenizer(query, text, truncation=True, max_length=model.max_seq_length)["input_ids"]
    assert len(ids) == model.max_seq_length == 128 < len(model.tokenizer(query, text)["input_ids"])  # it is cut there
    _, cut = cross_encoder.rerank(lambda: model, run, topics, 5, tmp_path, "x", made_by=BY)
    assert cut == 2
    _, cut = cross_encoder.rerank(lambda: pytest.fail("loaded"), run, topics, 5, tmp_path, "x", made_by=BY)
    assert cut == 2  # a continued run counts what it did before


def test_a_score_that_is_not_finite_and_a_folder_that_is_no_model_are_refused(tmp_path, run_and_topics):
    class Broken:
        max_seq_length = None

        def predict(self, pairs, **_):
            return np.full(len(pairs), np.nan)

    with pytest.raises(UserError, match="score not finite for query_id=q1, doc_id=d0"):
        cross_encoder.rerank(Broken, *run_and_topics, 5, tmp_path, "x", made_by=BY)
    with pytest.raises(UserError, match="not a usable cross-encoder"):
        cross_encoder.load(tmp_path)


def test_the_commands_count_what_the_model_reads_cut(tmp_path, folder):
    import json
    import shutil

    from irlens.commands import settings
    from irlens.commands.recall import recall as run_recall
    from irlens.commands.rerank import rerank as run_rerank

    short, told = tmp_path / "short", []
    shutil.copytree(folder, short)
    config = json.loads((short / "tokenizer_config.json").read_text())
    (short / "tokenizer_config.json").write_text(json.dumps(config | {"model_max_length": 12}))
    asked = {"retriever": "bm25", "limit": 3, "at": (1, 2), "reranker": str(short), "rerank_depth": 4}
    out, _ = run_recall(settings.Recall(out=str(tmp_path / "recall"), **asked), told.append)
    counted = json.loads((out / "manifest.json").read_text())["truncated"]
    assert counted == {"bm25, short": 12}
    assert "bm25, short: 12 pairs were longer than the model reads, and were cut" in told

    told.clear()
    first = pd.read_parquet(out / "run.parquet").query("tag == 'bm25'")  # two passages for each of three questions
    first.to_parquet(tmp_path / "run.parquet")
    kind = {"run": str(tmp_path / "run.parquet"), "dataset": "facts", "reranker": f"cross-encoder:{short}"}
    again, _ = run_rerank(settings.Rerank(**kind, out=str(tmp_path / "rerank")), told.append)
    manifest = json.loads((again / "manifest.json").read_text())
    assert manifest["truncated"] == manifest["candidates"] == 6
    assert any("6 of 6 texts were longer than the model reads, and were cut" in line for line in told)
