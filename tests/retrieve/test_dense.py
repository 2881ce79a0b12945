"""Dense retrieval: encoding in shards, exact search against brute force, approximate indexes, and what is refused."""

import json

import numpy as np
import pandas as pd
import pytest

from irlens import tables
from irlens.base import files
from irlens.base.errors import UserError
from irlens.models import catalog
from irlens.retrieve import corpus, encoder
from irlens.retrieve import index as indexes
from irlens.retrieve.corpus import encode_corpus
from irlens.retrieve.encoder import DenseEncoder, batches
from irlens.retrieve.index import Index, Search, default_factory, to_run
from irlens.retrieve.vectors import Vectors

BY = {"encoder": "tiny-e5"}


@pytest.fixture(scope="session")
def tiny_encoder():
    chosen = catalog.encoder("tiny-e5")
    return DenseEncoder.load(chosen, catalog.fetch(chosen))


@pytest.fixture
def facts():
    from irlens import tasks

    return tasks.load("facts", limit=60)


def stored(folder, vectors, ids=None, rows=700):
    """Vectors as shards of `rows`."""
    ids = ids if ids is not None else [f"d{i:05d}" for i in range(len(vectors))]
    for number, start in enumerate(range(0, len(vectors), rows)):
        part = pd.DataFrame({"doc_id": ids[start : start + rows], "text": ids[start : start + rows]})
        files.write_parquet(part, folder / f"{number:06d}.parquet")
        corpus.write_vectors(vectors[start : start + rows].astype(np.float32), folder / f"{number:06d}.npy")
    return Vectors(folder)


def random_vectors(n, d=32, seed=0):
    vectors = np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def brute_force(queries, vectors, ids, k):
    """doc_ids [queries, k] by score, then the larger doc_id: all scores in 64 bits, rounded to 32."""
    scores = (queries.astype(np.float64) @ vectors.astype(np.float64).T).astype(np.float32)
    order = np.argsort(ids)[::-1]
    return [[ids[i] for i in order[np.argsort(-row[order], kind="stable")][:k]] for row in scores]


def topics_of(queries):
    return pd.DataFrame({"query_id": [f"q{i:03d}" for i in range(len(queries))], "query": ""})


def listed(run):
    return [rows["doc_id"].tolist() for _, rows in run.groupby("query_id", sort=True)]


def test_exact_search_is_brute_force_with_ties_by_doc_id(tmp_path):
    vectors = random_vectors(3000)
    vectors[1000:1100] = vectors[5]  # a hundred equal passages: more than fit between k and what is fetched
    vectors[2000:2003] = vectors[7]
    ids = [f"d{i:05d}" for i in np.random.default_rng(1).permutation(3000)]  # not in the order of rows
    queries = np.concatenate([random_vectors(50, seed=2), vectors[[5, 7]]])
    kept = stored(tmp_path / "vectors", vectors, ids)
    for k in (1, 2, 10, 50, 120):
        run = to_run(topics_of(queries), *Index(kept, "Flat").search(queries, k), kept, k, "x")
        assert listed(run) == brute_force(queries, vectors, ids, k)
    assert listed(
        to_run(topics_of(queries), *Index(kept, "Flat").search(queries, 3000), kept, 3000, "x")
    ) == brute_force(queries, vectors, ids, 3000)


def test_order_does_not_depend_on_how_queries_are_grouped(tmp_path):
    vectors, queries = random_vectors(2000), random_vectors(40, seed=3)
    kept = stored(tmp_path / "vectors", vectors)
    index = Index(kept, "Flat")
    whole = to_run(topics_of(queries), *index.search(queries, 20), kept, 20, "x")
    alone = [
        to_run(topics_of(queries[i : i + 1]), *index.search(queries[i : i + 1], 20), kept, 20, "x") for i in range(40)
    ]
    assert listed(whole) == [listed(run)[0] for run in alone]


def test_vectors_are_read_in_any_order_and_block(tmp_path):
    vectors = random_vectors(2000)
    kept = stored(tmp_path / "vectors", vectors)
    rows = np.array([1999, 0, 700, 699, 0])
    assert np.array_equal(kept.take(rows), vectors[rows])
    assert kept.passages(rows).tolist() == [f"d{i:05d}" for i in rows] and kept.passages(rows, "title")[0] is None
    for size, start in ((300, 0), (900, 0), (5000, 0), (512, 650), (512, 1400)):
        parts = list(kept.blocks(size, start))
        assert np.array_equal(np.concatenate([v for _, v in parts]), vectors[start:])
        assert [first for first, _ in parts] == list(start + np.cumsum([0, *(len(v) for _, v in parts[:-1])]))


@pytest.mark.parametrize(
    "factory, search",
    [
        ("HNSW32", Search(ef_search=200)),
        ("IVF32,Flat", Search(nprobe=24)),
        ("IVF32,PQ8x4fs", Search(nprobe=32, refine=30)),
        pytest.param("OPQ8_32,IVF32,PQ8", Search(nprobe=32, refine=30), marks=pytest.mark.slow),
        ("IVF32_HNSW16,SQ8", Search(nprobe=32)),
    ],
)
def test_approximate_indexes_find_nearly_all_with_exact_scores(tmp_path, factory, search):
    pytest.importorskip("faiss", reason="needs the extra irlens[dense]")
    vectors, queries = random_vectors(4000), random_vectors(60, seed=3)
    kept = stored(tmp_path / "vectors", vectors)
    index = Index(kept, factory, search, say=lambda line: None).open()
    run = to_run(topics_of(queries), *index.search(queries, 20), kept, 20, "x")
    truth = brute_force(queries, vectors, kept.doc_ids.to_pylist(), 20)
    assert np.mean([len(set(a) & set(b)) / 20 for a, b in zip(listed(run), truth)]) >= 0.95
    number = {doc_id: i for i, doc_id in enumerate(kept.doc_ids.to_pylist())}
    exact = [queries[int(q[1:])] @ vectors[number[d]] for q, d in zip(run["query_id"], run["doc_id"])]
    assert run["score"].to_numpy() == pytest.approx(np.array(exact), abs=1e-5)
    again = Index(Vectors(tmp_path / "vectors"), factory, search).open()  # from the file
    pd.testing.assert_frame_equal(run, to_run(topics_of(queries), *again.search(queries, 20), kept, 20, "x"))


def test_an_unfinished_index_is_continued(tmp_path, monkeypatch):
    faiss = pytest.importorskip("faiss", reason="needs the extra irlens[dense]")
    kept, queries = stored(tmp_path / "vectors", random_vectors(20_000)), random_vectors(5, seed=1)
    whole = Index(kept, "IVF16,Flat", say=lambda line: None).open().search(queries, 5)
    path = Index(kept, "IVF16,Flat").path
    path.unlink()
    index = Index(kept, "IVF16,Flat", say=lambda line: None)
    monkeypatch.setattr(indexes, "CHECKPOINT", -1)
    monkeypatch.setattr(indexes.files, "write_atomically", stop_at_second(indexes.files.write_atomically))
    with pytest.raises(KeyboardInterrupt):
        index.open()
    monkeypatch.undo()
    assert faiss.read_index(str(path.with_name(f".partial-{path.name}"))).ntotal == 8400
    told = []
    again = Index(kept, "IVF16,Flat", say=told.append).open().search(queries, 5)
    assert "continuing" in told[0] and all(np.array_equal(a, b) for a, b in zip(whole, again))


def stop_at_second(write):
    calls = []

    def stopped(*args):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        write(*args)

    return stopped


def test_the_default_index_goes_by_size():
    assert default_factory(200_000, 384)[0] == "Flat"
    assert default_factory(1_000_000, 384)[0] == "IVF1024,PQ96x4fs"
    assert default_factory(21_015_324, 768)[0] == "IVF4096_HNSW32,PQ192x4fs"


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda v, q: Index(v, "Flat").search(q, 51), "k=51 of a corpus of 50"),
        (lambda v, q: Index(v, "Flat").search(q, 0), "k=0"),
        (lambda v, q: Index(v, "Flat").search(q[:, :8], 3), "built with another model"),
        (lambda v, q: Index(v, "Flat").search(q * np.nan, 3), "not finite"),
        (lambda v, q: Index(v, "Flat", Search(nprobe=3)), "--nprobe: the index Flat is exact"),
        (lambda v, q: Index(v, "Flatt").open(), "--index 'Flatt': FAISS cannot make it"),
        (lambda v, q: Index(v, "IVF64,Flat").open(), "more cells than the corpus has passages"),
        (lambda v, q: Index(v, "HNSW8", Search(nprobe=3)).open(), "--nprobe: the index HNSW8 has no such parameter"),
    ],
)
def test_wrong_searches_are_refused(tmp_path, call, message):
    pytest.importorskip("faiss", reason="needs the extra irlens[dense]")
    with pytest.raises(UserError, match=message):
        call(stored(tmp_path / "vectors", random_vectors(50)), random_vectors(4, seed=1))


def test_an_index_of_other_vectors_is_refused(tmp_path):
    pytest.importorskip("faiss", reason="needs the extra irlens[dense]")
    Index(stored(tmp_path / "a" / "vectors", random_vectors(50)), "HNSW8").open()
    other = stored(tmp_path / "b" / "vectors", random_vectors(60))
    (tmp_path / "a" / "HNSW8.faiss").rename(tmp_path / "b" / "HNSW8.faiss")
    with pytest.raises(UserError, match="built with another model or corpus"):
        Index(other, "HNSW8").open()


def test_repeated_identifiers_over_shards_and_damaged_shards_are_refused(tmp_path):
    ids = [f"d{i % 40}" for i in range(50)]
    with pytest.raises(UserError, match=r"doc_id=d0 occurs more than once \(10 such"):
        _ = stored(tmp_path / "a", random_vectors(50), ids, rows=25).doc_ids
    stored(tmp_path / "b", random_vectors(50))
    (tmp_path / "b" / "000000.npy").write_bytes(b"no")
    with pytest.raises(UserError, match="not a readable array"):
        Vectors(tmp_path / "b")
    with pytest.raises(UserError, match="no vectors"):
        Vectors(tmp_path / "c")


def test_two_faiss_packages_are_refused(monkeypatch):
    monkeypatch.setattr(indexes.metadata, "packages_distributions", lambda: {"faiss": ["faiss-gpu", "faiss-cpu"]})
    with pytest.raises(UserError, match="faiss-cpu and faiss-gpu are both installed"):
        indexes.faiss_module()


# -- encoding ------------------------------------------------------------------------------------------------------


def test_encoding_is_plain_encode_with_the_models_prompts(tiny_encoder, facts):
    texts = facts.topics["query"].tolist()
    ours = tiny_encoder.encode(texts + texts[:3], "query")
    plain = tiny_encoder.model.encode([f"query: {text}" for text in texts], normalize_embeddings=True)
    assert np.abs(ours[: len(texts)] - plain).max() < 1e-5 and np.array_equal(ours[-3:], ours[:3])
    assert tiny_encoder.prompts() == {"query": "query: ", "passage": "passage: "}


def test_batches_hold_every_text_once_and_similar_lengths():
    lengths = np.random.default_rng(0).integers(1, 4000, 999)
    cut = list(batches(lengths))
    assert sorted(np.concatenate(cut)) == list(range(999))
    assert all(len(rows) * lengths[rows].max() <= encoder.CPU[0] or len(rows) == 1 for rows in cut)
    assert {len(rows) for rows in batches([5] * 100, 48)} == {48, 4}


def test_shards_are_kept_and_the_encoder_is_not_loaded_for_nothing(tmp_path, tiny_encoder, facts):
    told = []
    encode_corpus(lambda: tiny_encoder, facts.corpus, tmp_path / "a", say=told.append, shard=500, made_by=BY)
    before = {p.name: p.read_bytes() for p in (tmp_path / "a").iterdir()}
    next((tmp_path / "a").glob("000003-*.npy")).unlink()
    encode_corpus(lambda: tiny_encoder, facts.corpus, tmp_path / "a", say=told.append, shard=500, made_by=BY)
    assert "reused the vectors of 1,500 of 2,000" in told[-1]
    assert {p.name: p.read_bytes() for p in (tmp_path / "a").iterdir()} == before
    encode_corpus(lambda: pytest.fail("loaded"), facts.corpus, tmp_path / "a", say=told.append, shard=500, made_by=BY)


@pytest.mark.parametrize("change", ["texts", "order", "titles", "encoder", "prompt"])
def test_a_folder_never_gives_vectors_of_another_corpus_or_encoder(tmp_path, tiny_encoder, facts, change):
    corpus, told = facts.corpus.iloc[:40].reset_index(drop=True), []
    other, by = corpus, BY
    if change == "texts":  # as many passages, the same identifiers
        other = corpus.assign(text=facts.corpus["text"].iloc[40:80].tolist())
    elif change == "order":
        other = corpus.iloc[::-1].reset_index(drop=True)
    elif change == "titles":
        other = corpus.assign(title="Another title")
    else:
        by = BY | {change: "another"}
    first = encode_corpus(lambda: tiny_encoder, corpus, tmp_path / "v", made_by=BY, say=told.append)
    second = encode_corpus(lambda: tiny_encoder, other, tmp_path / "v", made_by=by, say=told.append)
    assert first != second and told == [
        f"{tmp_path / 'v'}: 1 files hold vectors of another corpus or encoder; kept, and not read"
    ]
    old, new = Vectors(tmp_path / "v", first), Vectors(tmp_path / "v", second)
    assert new.take(np.arange(40)) == pytest.approx(tiny_encoder.encode(tables.passage_texts(other)), abs=1e-5)
    assert new.doc_ids.to_pylist() == other["doc_id"].tolist() and len(old) == 40
    assert Index(old, "HNSW8", say=str).path != Index(new, "HNSW8", say=str).path
    assert encode_corpus(lambda: pytest.fail("loaded"), corpus, tmp_path / "v", made_by=BY, say=str) == first


def test_vectors_without_a_content_in_their_name_are_not_read(tmp_path, tiny_encoder, facts):
    corpus, told = facts.corpus.iloc[:40], []
    stored(tmp_path, random_vectors(40, tiny_encoder.dimension))
    key = encode_corpus(lambda: tiny_encoder, corpus, tmp_path, made_by=BY, say=told.append)
    assert "1 files hold vectors of another corpus or encoder" in told[0]
    vectors = Vectors(tmp_path, key)
    assert vectors.take(np.arange(40)) == pytest.approx(tiny_encoder.encode(tables.passage_texts(corpus)), abs=1e-5)


def test_a_corpus_on_disk_gives_the_vectors_of_one_in_memory(tmp_path, tiny_encoder, facts):
    class OnDisk:
        def __len__(self):
            return len(facts.corpus)

        def chunks(self, start=0, size=corpus.SHARD):
            yield from (facts.corpus.iloc[i : i + size] for i in range(start, len(self), size))

    encode_corpus(lambda: tiny_encoder, facts.corpus, tmp_path / "a", made_by=BY)
    encode_corpus(lambda: tiny_encoder, OnDisk(), tmp_path / "b", made_by=BY)
    a, b = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in "ab")
    assert a == b and len(a) == 2


def test_bad_corpora_and_vectors_are_refused(tmp_path, tiny_encoder):
    corpus = pd.DataFrame({"doc_id": ["a", "b"], "text": ["x", "y"]})
    with pytest.raises(UserError, match="the corpus is empty"):
        encode_corpus(lambda: tiny_encoder, corpus.iloc[:0], tmp_path, made_by=BY)
    with pytest.raises(UserError, match="doc_id=a occurs more than once"):
        encode_corpus(lambda: tiny_encoder, corpus.assign(doc_id="a"), tmp_path, made_by=BY)

    class Broken(DenseEncoder):
        def encode(self, texts, kind="passage", on_batch=None):
            return np.array([[1.0, 0.0], [np.nan, 0.0]], np.float32)

    with pytest.raises(UserError, match="not finite for 1 passages, such as 'b'"):
        encode_corpus(lambda: Broken(tiny_encoder.model, None, None, True), corpus, tmp_path, made_by=BY)
    assert not list(tmp_path.glob("*.npy"))


def test_half_precision_on_disk(tmp_path, tiny_encoder, facts):
    keys = [encode_corpus(lambda: tiny_encoder, facts.corpus, tmp_path, s, made_by=BY) for s in encoder.DTYPES[:2]]
    whole, half = (Vectors(tmp_path, key) for key in keys)  # side by side in one folder
    assert (
        half.shards[0].dtype == np.float16 and np.abs(half.take(np.arange(9)) - whole.take(np.arange(9))).max() < 1e-3
    )


@pytest.mark.slow
def test_a_pool_of_processes_gives_the_same_vectors(tiny_encoder, facts):
    texts = tables.passage_texts(facts.corpus)
    chosen = catalog.encoder("tiny-e5")
    pooled = DenseEncoder.load(chosen, catalog.fetch(chosen), processes=2, device="cpu")
    try:
        assert np.abs(pooled.encode(texts) - tiny_encoder.encode(texts)).max() < 1e-5
    finally:
        pooled.close()


# -- names ---------------------------------------------------------------------------------------------------------


def test_e5_prompts_follow_the_model_card_under_every_name(tmp_path):
    for name in ("e5", "e5-small", "e5-large", "intfloat/e5-base-v2"):
        chosen = catalog.encoder(name)
        assert (chosen.query_prompt, chosen.passage_prompt) == ("query: ", "passage: ")
        assert (chosen.pooling, chosen.normalize) == ("mean", True)
    assert catalog.encoder("e5-instruct").query_prompt.startswith("Instruct: ")
    assert catalog.encoder("e5-instruct").passage_prompt == "" and catalog.encoder("e5-mistral").pooling == "lasttoken"
    (tmp_path / "e5-base-v2").mkdir()
    (tmp_path / "e5-base-v2" / "config.json").write_text("{}")
    assert catalog.encoder(str(tmp_path / "e5-base-v2")).query_prompt == "query: "
    other = catalog.encoder("sentence-transformers/all-MiniLM-L6-v2")
    assert other.query_prompt is None and other.name == "sentence-transformers-all-MiniLM-L6-v2"


def test_a_repository_without_modules_gets_the_catalogs_pooling(tmp_path, facts):
    import shutil

    source = catalog.fetch(catalog.encoder("tiny-e5"))
    folder = tmp_path / "e5-base-v2"
    shutil.copytree(source, folder)
    for name in ("modules.json", "config_sentence_transformers.json", "sentence_bert_config.json"):
        (folder / name).unlink()
    ours = DenseEncoder.load(catalog.encoder(str(folder)), folder).encode(facts.topics["query"].tolist(), "query")
    theirs = DenseEncoder.load(catalog.encoder("tiny-e5"), source).encode(facts.topics["query"].tolist(), "query")
    assert np.abs(ours - theirs).max() < 1e-5


def test_a_folder_that_is_no_encoder_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "nothing"}))
    with pytest.raises(UserError, match="not a usable sentence encoder"):
        DenseEncoder.load(catalog.encoder(str(tmp_path)), tmp_path)
    with pytest.raises(UserError, match="no modules.json"):
        (tmp_path / "config.json").unlink()
        catalog.encoder(str(tmp_path))


# -- as a retriever ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder of `irlens index` over `facts`."""
    from irlens.commands.index import index
    from irlens.commands.settings import Index as Settings

    folder, _ = index(Settings(out=str(tmp_path_factory.mktemp("built") / "index")), lambda line: None)
    return folder


def test_a_small_corpus_in_memory_gives_the_run_of_its_index_in_a_folder(built, facts):
    from irlens.retrieve.dense import Dense

    asked = facts.topics.head(20)
    here, there = Dense("tiny-e5", facts.corpus)(asked, 7), Dense("tiny-e5", index=built)(asked, 7)
    pd.testing.assert_frame_equal(here, there)
    assert tables.check(here, "run") is here and set(here["tag"]) == {"tiny-e5"}
    assert dict(zip(here["query_id"], here["query"])) == dict(zip(asked["query_id"], asked["query"]))
    assert set(here["text"]) <= set(facts.corpus["text"])


def test_more_than_there_are_gives_all(tiny_encoder, facts):
    from irlens.retrieve.dense import Dense

    corpus = facts.corpus.head(5)
    run = Dense(tiny_encoder, corpus)(facts.topics.head(2), 100)
    assert run.groupby("query_id")["doc_id"].apply(set).tolist() == [set(corpus["doc_id"])] * 2


@pytest.mark.parametrize("make, message", [
    (lambda c, b: c("e6", pd.DataFrame()), "unknown retriever .e6."),
    (lambda c, b: c("tiny-e5"), "give a corpus, or the folder of an index"),
    (lambda c, b: c("tiny-e5", pd.DataFrame({"doc_id": [], "text": []})), "the corpus is empty"),
    (lambda c, b: c("tiny-e5", pd.DataFrame({"doc_id": ["a"]})), "missing: text"),
    (lambda c, b: c("tiny-e5", index="nowhere"), "nowhere: no folder of a finished `irlens index`"),
    (lambda c, b: c("tiny-e5", pd.DataFrame({"doc_id": ["a"], "text": ["b"]}), b), "index holds 2,000 passages, the corpus 1"),
])  # fmt: skip
def test_what_dense_cannot_retrieve_from_is_told_in_one_line(built, make, message):
    from irlens.retrieve.dense import Dense

    with pytest.raises(UserError, match=message):
        make(Dense, built)


def test_an_index_of_another_encoder_is_refused(built, tmp_path):
    from irlens.base.checksums import signed
    from irlens.retrieve.dense import Dense

    folder = tmp_path / "other"
    folder.mkdir()
    manifest = json.loads((built / "manifest.json").read_text())
    manifest["settings"]["encoder_digest"] = "0" * 16
    (folder / "manifest.json").write_text(json.dumps(signed(manifest)))
    with pytest.raises(UserError, match="made by another encoder .tiny-e5."):
        Dense("tiny-e5", index=folder)


def test_an_encoder_on_the_cpu_stays_there_beside_gpus(tiny_encoder, monkeypatch):
    monkeypatch.setattr(encoder, "_gpus", lambda: 2)
    started = []
    monkeypatch.setattr(tiny_encoder.model, "start_multi_process_pool", started.append)
    assert tiny_encoder.encode(["one", "two"]).shape == (2, tiny_encoder.dimension) and not started


def test_more_results_than_a_gpu_gives_come_from_the_cpus_copy_of_the_index(tmp_path, monkeypatch):
    faiss = pytest.importorskip("faiss")
    asked = []

    class OnGPU:
        def __init__(self, index, options):
            self.index = index

        def search(self, queries, k):
            if k > 2048:
                raise RuntimeError("Error: 'k <= 2048' failed")
            asked.append(k)
            return self.index.search(queries, k)

    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1, raising=False)
    monkeypatch.setattr(faiss, "GpuMultipleClonerOptions", lambda: type("Options", (), {})(), raising=False)
    monkeypatch.setattr(faiss, "index_cpu_to_all_gpus", OnGPU, raising=False)
    vectors = random_vectors(3000)
    index = Index(stored(tmp_path / "v", vectors), "IVF8,Flat", Search(nprobe=8)).open()
    assert index.search(vectors[:2], 2500)[1].shape[1] >= 2500 and not asked
    assert index.search(vectors[:2], 5)[1][:, 0].tolist() == [0, 1] and len(asked) == 1
