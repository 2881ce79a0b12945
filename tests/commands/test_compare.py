"""`irlens compare`: systems over the same prompts, their tests and groups, beside numbers worked out by hand."""

import json

import numpy as np
import pandas as pd
import pytest

import irlens
from irlens import tables
from irlens.base import files
from irlens.commands import exchange, settings
from irlens.commands.compare import compare
from irlens.commands.evaluate import evaluate
from irlens.commands.imports import import_draws
from irlens.measure import groups

PROMPTS = 12


def test_values_tests_and_groups(three, tmp_path):
    folder, values, tests = compare(exchange.Compare(runs=three, measures="Pass@1", out=str(tmp_path / "c")), str)
    assert dict(zip(values["run"], values["value"])) == pytest.approx({"good": 23 / 24, "twin": 23 / 24, "bad": 0.0})
    assert dict(zip(values["run"], values["group"])) == {"good": "a", "twin": "a", "bad": "b"}
    assert set(values["n"]) == {PROMPTS} and (values["low"] < values["high"]).all()
    found = {(row.before, row.after): row for row in tests.itertuples()}
    assert found["good", "twin"].p == 1 and found["good", "twin"].difference == 0
    assert found["good", "bad"].p == 2 / 2**PROMPTS  # all signs alike: the two most extreme of 4,096 patterns
    assert found["good", "bad"].p_holm == 3 * 2 / 2**PROMPTS and found["good", "bad"].difference == pytest.approx(
        -23 / 24
    )
    public = irlens.compare(
        *(irlens.measure(tables.read_run(p), tables.read_qrels(p), ["Pass@1"]) for p in three), measures="Pass@1"
    )
    assert tests["p_holm"].tolist() == public["p_holm"].tolist()
    pd.testing.assert_frame_equal(pd.read_csv(folder / "tests.csv"), tests, check_dtype=False)


def test_the_tables_in_markdown_and_latex(three, saved, tmp_path):
    odd = saved(tmp_path / "a_b&c", [[1, 0]] * PROMPTS)
    folder, values, _ = compare(exchange.Compare(runs=[*three, str(odd)], out=str(tmp_path / "c")), str)
    assert values["measure"].drop_duplicates().tolist() == ["Pass@1", "Pass@2"]
    page, table = (folder / "compare.md").read_text(), (folder / "compare.tex").read_text()
    assert "| Pass@1 | good | 0.958 | 0.042 | [" in page and page.count("\n| Pass@") == 4 * 2 + 6 * 2
    assert r"Pass@1 & a\_b\&c & $0.500^{" in table and table.count(r"\\") == 1 + 8
    assert r"\toprule" in table and table.strip().endswith(r"\end{tabular}")


def test_groups_where_being_alike_does_not_carry_over():
    """a and b are alike, b and c are, a and c are not: b is in both groups."""
    pairs = [("a", "b", 0.2), ("a", "c", 0.01), ("b", "c", 0.05), ("a", "d", 0.0), ("b", "d", 0.0), ("c", "d", 0.0)]
    tests = pd.DataFrame(pairs, columns=["before", "after", "p_holm"])
    assert groups.letters(tests, list("abcd")) == {"a": "a", "b": "ab", "c": "b", "d": "c"}
    assert groups.letters(tests.assign(p_holm=0.0), list("dcba")) == {"d": "a", "c": "b", "b": "c", "a": "d"}
    assert set(groups.letters(tests.assign(p_holm=1.0), list("abcd")).values()) == {"a"}


def test_runs_that_name_their_prompts_otherwise_are_joined_by_text(three, saved, tmp_path):
    other = saved(tmp_path / "other", [[0, 0]] * PROMPTS, name="q")
    told = []
    _, values, tests = compare(exchange.Compare(runs=[three[0], str(other)], out=str(tmp_path / "c")), told.append)
    assert "joined by their text" in told[0] and set(tests["n"]) == {PROMPTS}
    assert values["group"].tolist() == ["a", "b"] * 2


def test_only_prompts_that_all_have_are_compared_and_that_is_said(three, saved, tmp_path):
    few = saved(tmp_path / "few", [[1, 0]] * 8)
    told = []
    _, _, tests = compare(exchange.Compare(runs=[three[0], str(few)], out=str(tmp_path / "c")), told.append)
    assert set(tests["n"]) == {8}
    lacking = "few lacks 4: p-10, p-11, p-8, …"
    assert told == [f"8 prompts that all have; 4 that some lack are left out ({lacking})"]


def test_a_verifier_judges_all_alike_and_other_judgements_are_told(three, tmp_path):
    rows = [
        {"prompt": f"prompt {i}", "responses": [f"#### {i}", "no"], "scores": [0, 1], "answer": str(i)}
        for i in range(4)
    ]
    path = tmp_path / "wrongly.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    folder, _ = import_draws(exchange.Import(file=str(path), out=str(tmp_path / "wrongly")), str)
    told = []
    asked = {"runs": [three[0], str(folder)], "measures": "Success@1"}
    _, values, _ = compare(exchange.Compare(**asked, out=str(tmp_path / "c")), told.append)
    assert any("judged in other ways: good by what lies beside it, wrongly by scores" in line for line in told)
    assert dict(zip(values["run"], values["value"])) == {"good": 1.0, "wrongly": 0.0}
    _, values, _ = compare(exchange.Compare(**asked, verifier="gsm8k", out=str(tmp_path / "v")), str)
    assert dict(zip(values["run"], values["value"])) == {"good": 1.0, "wrongly": 1.0}


def test_a_reward_model_judges_all(three, tmp_path):
    """Its mean score of each run, as `rerank` by the same model has it."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    from irlens.commands.rerank import rerank
    from irlens.models import catalog

    tokenizer = AutoTokenizer.from_pretrained(catalog.fetch(catalog.encoder("tiny-e5")))
    torch.manual_seed(0)
    config = BertConfig(vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
                        intermediate_size=32, max_position_embeddings=64, num_labels=1, initializer_range=0.5)  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    model, some = str(tmp_path / "model"), [three[0], three[2]]
    _, values, _ = compare(exchange.Compare(runs=some, reward=model, out=str(tmp_path / "c")), str)
    found = values.set_index(["measure", "run"])["value"]
    for name, run in (("good", some[0]), ("bad", some[1])):
        folder, _ = rerank(settings.Rerank(run=run, reranker=model, out=str(tmp_path / f"r-{name}")), str)
        assert found["Reward@1", name] == pytest.approx(tables.read_run(folder)["reward"].mean(), abs=1e-5)
    assert found["Reward@1", "good"] != found["Reward@1", "bad"]


def test_folders_that_were_measured_before_and_several_temperatures(three, tmp_path):
    for name, run in (("x", three[0]), ("y", three[2])):
        evaluate(run, run, "Pass@1", str(tmp_path / name), say=str)
    _, values, tests = compare(
        exchange.Compare(runs=[str(tmp_path / "x"), str(tmp_path / "y")], out=str(tmp_path / "c")), str
    )
    assert dict(zip(values["run"], values["value"])) == pytest.approx({"x": 23 / 24, "y": 0.0}) and len(tests) == 1
    run = tables.read_run(three[0])
    hot = tmp_path / "hot"
    files.write_parquet(run.assign(temperature=np.where(run["draw"] == 0, 0.5, 1.0)), hot / "run.parquet")
    files.write_parquet(tables.read_qrels(three[0]), hot / "qrels.parquet")
    _, values, _ = compare(exchange.Compare(runs=[str(hot)], measures="Pass@1", out=str(tmp_path / "h")), str)
    assert values["run"].tolist() == ["hot: T = 0.5", "hot: T = 1"] and values["value"].tolist() == pytest.approx(
        [1, 11 / 12]
    )


@pytest.mark.parametrize(
    "args, message",
    [
        ([], "name two or more runs"),
        (["good"], "needs two systems or more, got 1"),
        (["good", "good"], "name each run once"),
        (["good", "none"], "none: no such run or folder"),
        (["good", "bad", "--verifier", "gsm8k", "--reward", "fsfairx"], "one judge, not --verifier and --reward"),
        (["good", "bad", "--measures", "Pass@3"], "Pass@3"),
        (["good", "far"], "no prompt in common"),
    ],
)
def test_what_cannot_be_compared(three, saved, tmp_path, refused, args, message):
    far = saved(tmp_path / "far", [[1, 0]] * 2, name="z")
    run = tables.read_run(far)
    files.write_parquet(run.assign(query="far " + run["query"]), far / "run.parquet")
    assert message in refused("compare", *args)
