"""`irlens import` and `irlens export`: other tools' draws through every command, and files that come back as they were."""

import json

import pandas as pd
import pytest

import irlens
from irlens import tables
from irlens.base.errors import UserError
from irlens.commands import exchange, runs, settings
from irlens.commands.best_of_n import best_of_n
from irlens.commands.evaluate import evaluate
from irlens.commands.exports import FORMATS, export
from irlens.commands.imports import import_draws
from irlens.commands.mine_negatives import mine_negatives
from irlens.commands.rerank import rerank, verify

N = 8


@pytest.fixture(scope="module")
def task():
    return irlens.load("sums", split="test", limit=N)


@pytest.fixture(scope="module")
def samples(task, tmp_path_factory):
    """lm-eval's samples: of question i the first i % 4 of four responses are right, each judged."""
    path = tmp_path_factory.mktemp("lm") / "samples_sums_2026-01-01T00-00-00.jsonl"
    rows = []
    for i, (query, answers) in enumerate(zip(task.topics["query"], task.topics["answers"])):
        right = [float(draw < i % 4) for draw in range(4)]
        texts = [f"so it is\n#### {answers[0] if r else -10 * i - draw - 1}" for draw, r in enumerate(right)]
        rows.append(
            {
                "doc_id": i,
                "doc": {"question": query},
                "target": f"#### {answers[0]}",
                "arguments": {"gen_args_0": {"arg_0": query, "arg_1": {"do_sample": True, "temperature": 1.0}}},
                "resps": [texts],
                "filtered_resps": texts,
                "filter": "none",
                "metrics": ["exact_match"],
                "exact_match": right,
            }
        )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def imported(samples, tmp_path_factory):
    """The folder of their import, without a data set."""
    return import_draws(exchange.Import(file=str(samples), out=str(tmp_path_factory.mktemp("i") / "lm")), str)[0]


MEAN = sum(i % 4 for i in range(N)) / (4 * N)


def test_the_files_own_figure_comes_out_with_its_interval(samples, tmp_path):
    told = []
    asked = exchange.Import(file=str(samples), out=str(tmp_path / "i"))
    folder, results = import_draws(asked, told.append)
    assert results["measure"].tolist() == ["Pass@1", "Pass@3", "Pass@4"] and set(results["n"]) == {N}
    assert results["value"].iloc[0] == pytest.approx(MEAN, abs=1e-12)
    assert results["value"].iloc[-1] == pytest.approx(0.75) and (results["low"] < results["value"]).all()
    assert f"the file's own exact_match,none: {MEAN:.6g}, the same" in told
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["task"] == "sums" and manifest["reported"] == {"exact_match,none": MEAN}
    again, _ = import_draws(asked, told.append)
    assert again == folder and "finished by this command before" in told[-1]


def test_an_import_goes_into_every_command(imported, tmp_path):
    here = str(imported)
    _, measured = evaluate(here, here, "Pass@1 Pass@4", str(tmp_path / "e"), say=str)
    assert measured["value"].tolist() == pytest.approx([MEAN, 0.75])
    folder, results = verify(settings.Verify(run=here, verifier="gsm8k", out=str(tmp_path / "v")), str)
    assert results["value"].iloc[0] == pytest.approx(MEAN)  # the targets of the file are gold answers
    assert tables.read_qrels(folder)["relevance"].tolist() == tables.read_qrels(imported)["relevance"].tolist()
    asked = {"run": here, "verifier": "gsm8k"}
    _, best = best_of_n(settings.BestOfN(**asked, reranker="majority,length", out=str(tmp_path / "b")), str)
    assert best[best["run"] == "oracle"]["value"].iloc[-1] == pytest.approx(0.75)
    folder, first = rerank(settings.Rerank(run=here, reranker="oracle", out=str(tmp_path / "r")), str)
    assert first["value"].iloc[0] == pytest.approx(0.75)
    other = irlens.measure(tables.read_run(folder), tables.read_qrels(folder), ["Success@1"])
    drawn = irlens.measure(tables.read_run(imported), tables.read_qrels(imported), ["Pass@1"])
    tests = irlens.compare(drawn.per_query.assign(measure="first"), other.per_query.assign(measure="first"))
    assert tests["n"].tolist() == [N] and tests["difference"].iloc[0] == pytest.approx(0.75 - MEAN)


def test_negatives_are_mined_by_the_files_own_verdicts(imported, tmp_path):
    asked = {"run": str(imported), "temperature": (1.0,), "tier": "hard", "positives_from": "own", "hardness": False}
    folder, lists, _ = mine_negatives(settings.Mine(**asked, out=str(tmp_path / "m")), str)
    grades = tables.read_qrels(imported).set_index("doc_id")["relevance"]
    for tier, wanted in (("positive", 1), ("hard", 0)):
        assert set(grades[lists[lists["tier"] == tier]["doc_id"]]) == {wanted}
    assert lists["query_id"].nunique() == 6  # two of eight have no right draw
    assert (folder / "trl.jsonl").is_file()


def test_a_model_trains_on_an_import(imported):
    from irlens.models import load
    from irlens.models.catalog import fetch, model

    lists = irlens.lists(tables.read_run(imported), tables.read_qrels(imported), positives=1, negatives=1)
    folder = fetch(model("tiny"))
    causal, tokenizer = load.causal_lm(folder, device="cpu"), load.tokenizer(folder)
    before = irlens.train.scores(causal, (batch := irlens.train.batches(causal, tokenizer, lists, batch_size=6)[0]))
    more = {"beta": 0.5, "epochs": 3, "batch_lists": 2, "learning_rate": 1e-3}
    irlens.train.fit(causal, tokenizer, lists, objective="pairwise", **more)
    after = irlens.train.scores(causal, batch)
    gap = [(s.log_ratio[:, 0] - s.log_ratio[:, 1]).mean().item() for s in (before, after)]
    assert gap[0] == pytest.approx(0, abs=1e-4) and gap[1] > 0.05


def test_with_a_data_set_prompts_have_its_identifiers_and_its_verifier(samples, task, tmp_path):
    asked = {"dataset": "sums", "split": "test", "out": str(tmp_path / "i")}
    folder, _ = import_draws(exchange.Import(file=str(samples), **asked), str)
    assert set(tables.read_run(folder)["query_id"]) == set(task.topics["query_id"])
    assert set(tables.read_qrels(folder)["query_id"]) == set(task.topics["query_id"])
    source = runs.read(str(folder))
    assert (source.dataset, source.split) == ("sums", "test")
    judged, _ = verify(settings.Verify(run=str(folder), out=str(tmp_path / "v")), str)  # no --verifier
    assert tables.read_qrels(judged)["relevance"].tolist() == tables.read_qrels(folder)["relevance"].tolist()
    with pytest.raises(UserError, match=r"queries of the run .* are not in the data set facts"):
        import_draws(exchange.Import(file=str(samples), dataset="facts", out=str(tmp_path / "f")), str)
    assert not (tmp_path / "f").exists()


def test_an_import_is_a_data_set_of_prompts(imported, task):
    prompts = irlens.load(imported, limit=3)
    assert prompts.topics["query"].tolist() == task.topics["query"].tolist()[:3] and prompts.verifier is None
    assert [list(a) for a in prompts.topics["answers"]] == [[f"#### {a[0]}"] for a in task.topics["answers"][:3]]


def test_scores_that_are_no_verdicts_are_rewards(tmp_path):
    rows = [{"prompt": p, "responses": ["a", "bb"], "scores": [0.5, -1.5]} for p in ("p?", "q?")]
    path = tmp_path / "draws.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    folder, results = import_draws(exchange.Import(file=str(path), model="mine", out=str(tmp_path / "i")), str)
    assert results["measure"].tolist() == ["Reward@1", "Reward@2"] and results["value"].tolist() == [-0.5, 0.5]
    assert set(results["run"]) == {"mine"} and not (folder / "qrels.parquet").exists()
    _, best = best_of_n(settings.BestOfN(run=str(folder), reranker="length", out=str(tmp_path / "b")), str)
    assert best[(best["run"] == "oracle") & (best["cutoff"] == 2)]["value"].tolist() == [0.5]
    with pytest.raises(UserError, match="holds the output of|was made with content"):
        path.write_text(path.read_text().replace("0.5", "0.25"))
        import_draws(exchange.Import(file=str(path), model="mine", out=str(tmp_path / "i")), str)


def test_a_bad_file_leaves_nothing_behind(tmp_path, refused):
    path = tmp_path / "draws.jsonl"
    path.write_text('{"prompt": "a", "response": "b"}\n{"prompt": "a", "resp')
    assert "draws.jsonl:2: malformed JSON" in refused("import", str(path), "--out", str(tmp_path / "out"))
    assert "name a file of draws" in refused("import")
    assert "the file judges nothing" in _refused_for_judge(refused, tmp_path)
    assert not (tmp_path / "out").exists() and not (tmp_path / "irlens-out").exists()


def _refused_for_judge(refused, tmp_path):
    path = tmp_path / "good.jsonl"
    path.write_text('{"prompt": "a", "response": "b"}\n')
    return refused("import", str(path), "--judged-by", "x", "--out", str(tmp_path / "out"))


def test_a_temperature_that_the_file_contradicts_is_refused(samples, tmp_path):
    with pytest.raises(UserError, match="--temperature 0.5: .* says that it drew at 1"):
        import_draws(exchange.Import(file=str(samples), temperature=0.5, out=str(tmp_path / "i")), str)


# -- export --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["lm-eval", "jsonl"])
def test_what_is_exported_comes_back(imported, tmp_path, kind):
    _, (file,) = export(exchange.Export(run=str(imported), to=kind, out=str(tmp_path / "x")), str)
    back, results = import_draws(exchange.Import(file=str(file), out=str(tmp_path / "i")), str)
    assert results["value"].iloc[0] == pytest.approx(MEAN)
    columns = ["query", "text", "temperature", "draw"]
    was, now = (tables.read_run(f).sort_values(["query", "draw"], ignore_index=True)[columns] for f in (imported, back))
    pd.testing.assert_frame_equal(was, now)
    assert sorted(tables.read_qrels(back)["relevance"]) == sorted(tables.read_qrels(imported)["relevance"])


WANTED = {  # what Every Eval Ever's schema 0.2.2 requires, and all that it allows at the top
    "evaluation": {"schema_version", "evaluation_id", "retrieved_timestamp", "source_metadata", "model_info",
                   "eval_library", "evaluation_results"},
    "result": {"evaluation_name", "source_data", "metric_config", "score_details"},
    "instance": {"schema_version", "evaluation_id", "model_id", "evaluation_name", "sample_id", "interaction_type",
                 "input", "output", "answer_attribution", "evaluation"},
}  # fmt: skip


def test_every_eval_ever_has_what_its_schema_wants(imported, tmp_path):
    asked = exchange.Export(run=str(imported), to="every-eval-ever", organization="us", out=str(tmp_path / "x"))
    _, (whole, each) = export(asked, str)
    found = json.loads(whole.read_text())
    rows = [json.loads(line) for line in each.read_text().splitlines()]
    assert found.keys() - {"detailed_evaluation_results"} == WANTED["evaluation"]
    assert found["schema_version"] == "0.2.2" and found["source_metadata"]["source_organization_name"] == "us"
    assert found["source_metadata"]["evaluator_relationship"] in (
        "first_party",
        "third_party",
        "collaborative",
        "other",
    )
    assert {"name", "id"} <= found["model_info"].keys() and {"name", "version"} <= found["eval_library"].keys()
    for result in found["evaluation_results"]:
        assert result.keys() >= WANTED["result"] and result["source_data"]["source_type"] == "other"
        config, interval = result["metric_config"], result["score_details"]["uncertainty"]["confidence_interval"]
        assert config["lower_is_better"] is False and config["min_score"] == 0 and config["max_score"] == 1
        assert interval["lower"] < result["score_details"]["score"] <= interval["upper"]
    first = found["evaluation_results"][0]
    assert first["metric_config"]["metric_name"] == "Pass@1" and first["score_details"]["score"] == pytest.approx(MEAN)
    detail = found["detailed_evaluation_results"]
    assert (detail["file_path"], detail["total_rows"], len(rows)) == (each.name, 4 * N, 4 * N)
    import hashlib

    assert detail["checksum"] == hashlib.sha256(each.read_bytes()).hexdigest()
    assert all(row.keys() - {"evaluation_result_id", "sample_hash", "metadata"} == WANTED["instance"] for row in rows)
    assert {row["evaluation_id"] for row in rows} == {found["evaluation_id"]}
    assert sum(row["evaluation"]["score"] for row in rows) / len(rows) == pytest.approx(MEAN)
    assert all(isinstance(value, str) for row in rows for value in row["metadata"].values())


def test_lists_and_trec_files(imported, tmp_path):
    made = {}
    with pytest.raises(UserError, match="not drawn for MixEval"):
        export(exchange.Export(run=str(imported), to="mixeval", out=str(tmp_path / "none")), str)
    assert not (tmp_path / "none").exists()
    for kind in set(FORMATS) - {"mixeval"}:
        made[kind] = export(exchange.Export(run=str(imported), to=kind, negatives=1, out=str(tmp_path / kind)), str)[1]
    pairs = pd.read_json(made["trl"][0], lines=True)
    assert len(pairs) == 6 and pairs["chosen"].ne(pairs["rejected"]).all()
    assert set(pd.read_json(made["kto"][0], lines=True)["label"]) == {True, False}
    assert [file.name for file in made["sentence-transformers"]] == ["triplets.jsonl", "tuples.jsonl"]
    run, qrels = made["trec"]
    again = irlens.measure(tables.read_run(run).assign(draw=0), tables.read_qrels(qrels), ["Pass@1"])
    assert again["value"].iloc[0] == pytest.approx(MEAN)


def test_mined_lists_are_exported_as_they_are(imported, tmp_path):
    asked = {"run": str(imported), "temperature": (1.0,), "tier": "hard", "positives_from": "own", "hardness": False}
    folder, _, _ = mine_negatives(settings.Mine(**asked, out=str(tmp_path / "m")), str)
    _, (file,) = export(exchange.Export(run=str(folder), to="trl", out=str(tmp_path / "x")), str)
    assert file.read_text() == (folder / "trl.jsonl").read_text()


def test_a_chat_is_exported_as_a_chat(tmp_path):
    chat = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "q?"}]
    path = tmp_path / "draws.jsonl"
    path.write_text(json.dumps({"prompt": chat, "responses": ["a", "b"], "scores": [1, 0]}) + "\n")
    folder, _ = import_draws(exchange.Import(file=str(path), out=str(tmp_path / "i")), str)
    _, (file,) = export(exchange.Export(run=str(folder), to="trl", out=str(tmp_path / "x")), str)
    pair = json.loads(file.read_text())
    assert pair["prompt"] == chat and pair["chosen"] == [{"role": "assistant", "content": "a"}]
    _, (file,) = export(exchange.Export(run=str(folder), to="jsonl", out=str(tmp_path / "j")), str)
    assert json.loads(file.read_text())["prompt"] == chat
    _, (file,) = export(exchange.Export(run=str(folder), to="lm-eval", out=str(tmp_path / "l")), str)
    back, _ = import_draws(exchange.Import(file=str(file), out=str(tmp_path / "b")), str)
    run = tables.read_run(back)
    assert list(run["messages"].iloc[0]) == chat and set(run["query"]) == {"q?"} and run["text"].tolist() == ["a", "b"]


def test_exports_that_cannot_be(imported, tmp_path, refused):
    path = tmp_path / "draws.jsonl"
    path.write_text('{"prompt": "a", "responses": ["b", "c"]}\n')
    folder, results = import_draws(exchange.Import(file=str(path), out=str(tmp_path / "i")), str)
    assert results.empty
    for kind, message in (("trl", "no qrels beside it"), ("every-eval-ever", "judge it with `irlens verify` first")):
        assert message in refused("export", str(folder), "--to", kind, "--out", str(tmp_path / "x"))
    assert not (tmp_path / "x").exists()
    assert "--to 'trll'; did you mean 'trl'" in refused("export", str(folder), "--to", "trll")


def test_a_notebook_brings_draws_in_and_sends_them_out(tmp_path):
    """`import_draws` and `export_draws` give what the commands give, and need no output folder of irlens's own."""
    rows = [
        {"prompt": f"ask {i}", "responses": [f"#### {i}", "no"], "scores": [1, 0], "answer": str(i)} for i in range(3)
    ]
    path = tmp_path / "draws.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run, qrels = irlens.import_draws(path, model="mine", temperature=0.7)
    folder, results = import_draws(
        exchange.Import(file=str(path), model="mine", temperature=0.7, out=str(tmp_path / "i")), str
    )
    pd.testing.assert_frame_equal(run, tables.read_run(folder))
    pd.testing.assert_frame_equal(qrels, tables.read_qrels(folder))
    assert irlens.measure(run, qrels, "Pass@1")["value"].tolist() == results["value"].tolist()[:1]
    for kind in (one for one in FORMATS if one != "mixeval"):  # which only MixEval's own prompts have
        out = tmp_path / kind
        made = irlens.export_draws(run, out, kind, qrels=qrels, model="mine")
        assert made and all(one.parent == out and one.stat().st_size for one in made)
        again, files = export(exchange.Export(run=str(folder), to=kind, out=str(tmp_path / f"{kind}-by-command")), str)
        if kind not in (
            "every-eval-ever",
            "lm-eval",
            "jsonl",
            "trec",
            "alpaca-eval",
        ):  # these are named after the folder
            assert [one.read_text() for one in made] == [one.read_text() for one in files]
        elif kind not in ("every-eval-ever", "alpaca-eval"):  # which tell when it was made, and the data set
            assert sorted(one.read_text() for one in made) == sorted(one.read_text() for one in files), again
    back, judged = irlens.import_draws(tmp_path / "jsonl" / "draws.jsonl")
    assert sorted(back["text"]) == sorted(run["text"]) and judged["relevance"].sum() == 3


@pytest.mark.parametrize("call, message", [
    (lambda path, run: irlens.import_draws(path, modell="x"), "unknown option 'modell'; did you mean 'model'"),
    (lambda path, run: irlens.import_draws(path / "none.jsonl"), "none.jsonl"),
    (lambda path, run: irlens.export_draws(run, path, "trll"), "'trll'; did you mean 'trl'"),
    (lambda path, run: irlens.export_draws(run.drop(columns="rank"), path), "export_draws: a run table needs"),
    (lambda path, run: irlens.export_draws(run, path, "every-eval-ever"), "holds judged draws"),
    (lambda path, run: irlens.export_draws(run.drop(columns="query"), path), "its prompts are not known"),
    (lambda path, run: irlens.export_draws(run, path, "jsonl", negative=2), "unknown option 'negative'; did you mean"),
])  # fmt: skip
def test_what_a_notebook_may_not_bring_or_send(call, message, tmp_path):
    run = irlens.run([("ask", "a", 1.0), ("ask", "b", 0.0)]).drop(columns="reward", errors="ignore")
    with pytest.raises(UserError, match=message):
        call(tmp_path, run)
    assert not list(tmp_path.iterdir())
