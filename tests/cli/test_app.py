"""The command line as a stranger uses it: help, wrong input, killed half-way and started again."""

import itertools
import json
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from irlens.cli import demo

COMMANDS = ["passk", "index", "recall", "mine-negatives", "train", "evaluate", "temperatures", "plot", "reproduce", "demo"]  # fmt: skip
COMMANDS += ["rerank", "verify", "best-of-n", "doctor"]


def test_help_lists_every_command_and_loads_nothing_heavy(irlens):
    started = time.monotonic()
    shown = irlens("--help").stdout
    assert time.monotonic() - started < 5  # a loaded machine; see the import check below for what keeps it quick
    assert all(command in shown for command in COMMANDS)
    check = "import sys, irlens.cli.app; print([m for m in ('torch', 'transformers', 'pandas', 'numpy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", check], capture_output=True, text=True).stdout.strip() == "[]"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_shows_an_example(command, irlens):
    shown = irlens(command, "--help").stdout
    assert f"irlens {command}" in shown.split("Example:")[1]


@pytest.mark.parametrize(
    "args, message",
    [
        (("passk", "--model", "mathstrl"), "did you mean 'mathstral'"),
        (("passk", "--model", "nobody/nothing"), "--model tiny needs no download"),
        (("passk", "--model", "mathstral", "--dataset", "sums"), "mistralai/Mathstral-7B-v0.1"),
        (("passk", "--model", "./nowhere"), "no such folder"),
        (("passk", "--dataset", "gsm9k"), "did you mean 'gsm8k'"),
        (("passk", "--dataset", "gsm8k"), "--dataset sums"),
        (("passk", "--dataset", "./nowhere"), "no such file or folder"),
        (("reproduce", "fig2b", "--seeds", "0,1,0"), "the same seed twice is not another run"),
        (("passk", "--dataset", "facts"), "no verifier"),
        (("passk", "--split", "tset"), "no split 'tset'"),
        (("passk", "--temperature", "-1"), "--temperature must be"),
        (("passk", "--temperature", "nan"), "--temperature must be"),
        (("passk", "--temperature", "warm"), "expected numbers separated by commas"),
        (("passk", "--temperature", "1,1.0"), "each once"),
        (("passk", "-n", "10", "--at", "1,20"), "-n 10 is smaller than the largest N asked for, 20"),
        (("passk", "-n", "0"), "--n must be at least 1"),
        (("passk", "-n", "ten"), "valid int"),
        (("passk", "--limit", "0"), "limit must be at least 1"),
        (("passk", "--max-tokens", "1000"), "has at most 24 tokens (1,000 new ones fill the model's 1,024 positions)"),
        (("passk", "--max-tokens", "1000", "--max-prompt-length", "0"), "exceeds the model's 1024 positions"),
        (("passk", "--frobnicate"), "No such option"),
        (("passk", "--engine", "transfomers"), "did you mean 'transformers'"),
        (("passk", "--engine", "openai"), "needs --base-url"),
        (("passk", "--base-url", "http://127.0.0.1:9/v1"), "no server answers there"),
        (("passk", "--engine", "transformers", "--chat"), "--chat is for --engine openai"),
        (("passk", "--engine", "transformers", "--tensor-parallel", "2"), "--tensor-parallel is for --engine vllm"),
        (("passk", "--engine", "ray"), "--engine ray is now --devices ray"),
        (("passk", "--inner-engine", "vllm"), "--inner-engine is now called --engine"),
        (("passk", "--batch-size", "0"), "--batch-size must be at least 1"),
        (("passk", "--concurrency", "0"), "--concurrency must be at least 1"),
        (("passk", "--timeout", "0"), "--timeout must be a number above 0"),
        (("pask",), "No such command"),
        (("recall", "--retriever", "bm52"), "did you mean 'bm25'"),
        (("recall", "--dataset", "sums"), "no corpus"),
        (("recall", "--at", "5000"), "larger than the corpus"),
        (("train", "--objective", "lamdarank"), "did you mean 'lambdarank'"),
        (("train", "--prompts", "5000"), "has only 4000"),
        (("train", "--split", "test", "--eval-split", "test"), "are training problems"),
        (("train", "--learning-rate", "0"), "--learning-rate must be a number above 0"),
        (("mine-negatives", "--tier", "hard,hradest"), "did you mean 'hardest'"),
        (("mine-negatives", "--temperature", "1.0,1.5"), "must be below"),
        (("mine-negatives", "--unrelated", "sums"), "must be another data set"),
        (("mine-negatives", "--tier", "near-miss"), "needs rewards: --reward MODEL, or --reward-run FILE"),
        (("mine-negatives", "--tier", "margin", "--percentage", "0.95"), "log-probabilities are negative"),
        (("mine-negatives", "--text-threshold", "1.5"), "at most 1"),
        (("mine-negatives", "--encoder", "tiny-e6"), "did you mean 'tiny-e5'"),
        (("mine-negatives", "--run", "nowhere.parquet"), "no such run"),
        (("temperatures", "nowhere.run", "nowhere.qrels"), "nowhere.run"),
        (("reproduce", "fig2c"), "did you mean 'fig2"),
        (("reproduce", "fig2b", "--preset", "tny"), "did you mean 'tiny'"),
        (("plot", "nowhere.csv"), "nowhere.csv"),
    ],
)
def test_wrong_input_is_one_line_and_leaves_nothing(tmp_path, refused, args, message):
    assert message in refused(*args)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "rows, message",
    [
        (
            ['{"question": "1+1?", "answer": "#### 2"}', '{"question": "", "answer": "#### 2"}'],
            "test.jsonl:2: question must be",
        ),
        (['{"question": "1+1?", "answer": "#### 2"}', '{"question": "1+1?"}'], "test.jsonl:2: answer must be"),
        (
            ['{"question": "1+1?", "answer": "#### 2"}', '{"question": "1+1?", "answer": "two"}'],
            "test.jsonl:2: answer must end with `#### number`",
        ),
        (['{"quest": "1+1?"}'], "the first has: quest; say which is which: --columns prompt=COLUMN"),
        (['{"question": "1+1?", "answer": "#### 2"}', '{"question": '], "test.jsonl:2: malformed JSON"),
        ([], "test.jsonl: no rows"),
    ],
)
def test_a_damaged_data_set_is_named_by_file_and_line(tmp_path, refused, rows, message):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "test.jsonl").write_text("\n".join(rows))
    assert message in refused("passk", "--dataset", "data")
    assert [p.name for p in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize(
    "run, qrels, measures, message",
    [
        ("q Q0 d 0 1.0", "q 0 d 1", "RR", "a.run:1: expected 6 fields"),
        ("q Q0 d 0 1.0 t\nq Q0 d 1 0.5 t", "q 0 d 1", "RR", "query_id=q, doc_id=d occurs more than once"),
        ("q Q0 d 0 high t", "q 0 d 1", "RR", "score must be a number"),
        ("q Q0 d 0 1.0 t", "q 0 d", "RR", "a.qrels:1: expected 4 fields"),
        ("q Q0 d 0 1.0 t", "q 0 d 1", "RRR", "did you mean"),
        ("q Q0 d 0 1.0 t", "p 0 d 1", "RR", "q"),
        ("q Q0 d 0 1.0 t", "q 0 d 1", "Pass@2", "q"),
    ],
)
def test_a_damaged_run_is_refused(tmp_path, refused, run, qrels, measures, message):
    (tmp_path / "a.run").write_text(run + "\n")
    (tmp_path / "a.qrels").write_text(qrels + "\n")
    assert message in refused("evaluate", "a.run", "a.qrels", measures)


def test_a_run_without_query_id_is_refused(tmp_path, refused):
    pd.DataFrame({"doc_id": ["d"], "score": [1.0], "rank": [0]}).to_parquet(tmp_path / "run.parquet")
    (tmp_path / "a.qrels").write_text("q 0 d 1\n")
    assert "missing: query_id" in refused("evaluate", "run.parquet", "a.qrels", "RR")


def test_an_output_folder_that_cannot_be_written(tmp_path, refused):
    (tmp_path / "file").write_text("")
    assert "cannot be written" in refused("passk", "--limit", "3", "-n", "2", "--out", tmp_path / "file" / "x")


@pytest.mark.slow
def test_passk_writes_what_it_says_and_twice_the_same_bytes(tmp_path, irlens, files):
    args = ("passk", "--limit", "12", "-n", "6", "--temperature", "0.2,1.0", "--at", "1,2,6")
    shown = irlens(*args, "--out", tmp_path / "a").stdout
    assert "N = 6" in shown and "95 % intervals over 12 queries" in shown
    irlens(*args, "--out", tmp_path / "b", apart=True)
    a, b = files(tmp_path / "a"), files(tmp_path / "b")
    assert a and a == b
    irlens(*args, "--out", tmp_path / "c", "--batch-size", "5")
    runs = [pd.read_parquet(tmp_path / name / "run.parquet") for name in "ac"]
    assert (runs[0]["text"] == runs[1]["text"]).mean() >= 0.99  # rounding may flip one near-tie in 144 draws
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text())
    assert manifest["status"] == "complete" and manifest["draws"] == 144 and manifest["tokens_generated"] > 1000
    results = pd.read_csv(tmp_path / "a" / "results.csv")
    assert ((results["low"] <= results["value"]) & (results["value"] <= results["high"])).all()
    again = irlens(*args, "--out", tmp_path / "a").stdout
    assert "finished by this command before" in again and files(tmp_path / "a") == a
    assert "seed = 0, now 1" in irlens(*args, "--seed", "1", "--out", tmp_path / "a", code=2).stderr
    assert files(tmp_path / "a") == a
    shown = irlens("evaluate", tmp_path / "a", tmp_path / "a", "Success@1 Pass@6 nDCG@6 RR", cwd=tmp_path).stdout
    assert "Pass@6" in shown and "nDCG@6" in shown
    shown = irlens("plot", tmp_path / "a" / "passk.csv", "--log-x", cwd=tmp_path).stdout
    assert "drew passk.png, passk.pdf, passk.csv" in shown
    (folder,) = (tmp_path / "irlens-out").glob("plot-passk-*")
    assert (folder / "passk.png").stat().st_size > 10_000 and (folder / "manifest.json").exists()
    assert len(list((tmp_path / "irlens-out").glob("evaluate-a-*/results.csv"))) == 1


def test_an_interrupt_is_one_line(monkeypatch, capsys):
    from irlens.cli import app as cli

    def interrupted(settings, say):
        raise KeyboardInterrupt

    monkeypatch.setattr("irlens.commands.passk.passk", interrupted)
    monkeypatch.setattr(sys, "argv", ["irlens", "passk"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 130 and capsys.readouterr().err == "irlens: interrupted; the same command continues\n"


def test_a_recipe_of_ones_own(tmp_path, irlens):
    (tmp_path / "mine.toml").write_text('[[preset.tiny]]\nstage = "passk"\nlimit = 3\nn = 2\ntemperature = [1.0]\n')
    irlens("reproduce", "mine.toml", cwd=tmp_path)
    assert (tmp_path / "irlens-out" / "mine-tiny" / "1-passk" / "results.csv").exists()


@pytest.mark.slow
def test_seeds_and_arms_at_once_make_what_they_make_one_by_one(tmp_path, irlens, files):
    arm = '[[preset.tiny]]\nstage = "passk"\nlimit = 3\nn = 2\n'
    (tmp_path / "mine.toml").write_text(f'{arm}name = "hot"\ntemperature = [1.0]\n{arm}temperature = [0.2]\n')
    for jobs in (1, 2):
        irlens("reproduce", "mine.toml", "--seeds", "0,1", "--jobs", jobs, "--out", tmp_path / str(jobs), cwd=tmp_path)
    assert files(tmp_path / "1") == files(tmp_path / "2")
    for seed, arm in itertools.product((0, 1), ("hot", "passk")):
        assert f": {arm}\n" in (tmp_path / "2" / f"seed-{seed}" / f"log-{arm}.txt").read_text()


def test_real_gsm8k(tmp_path, real_data, irlens):
    args = ("passk", "--model", "tiny", "--dataset", real_data("gsm8k"), "--split", "test", "--limit", "10", "-n", "4")
    irlens(*args, "--temperature", "0.7", "--out", tmp_path / "a")
    results = pd.read_csv(tmp_path / "a" / "results.csv")
    assert (results["n"] == 10).all() and (results["value"] < 0.5).all()


@pytest.mark.slow
def test_real_nq(tmp_path, real_data, irlens):
    shown = irlens("recall", "--retriever", "bm25", "--dataset", real_data("nq"), "--out", tmp_path / "a").stdout
    assert "bm25, gold passage" in shown and "bm25, answer string" in shown
    results = pd.read_csv(tmp_path / "a" / "results.csv").set_index(["run", "cutoff"])["value"]
    assert results["bm25, gold passage"].round(3).tolist() == pytest.approx(
        [0.78, 0.929, 0.953, 0.968, 0.98, 0.985], abs=0.002
    )
    assert results["bm25, answer string"].round(3).tolist() == pytest.approx(
        [0.811, 0.938, 0.959, 0.974, 0.983, 0.989], abs=0.002
    )


def test_the_demo_tells_its_story(tmp_path, capsys):
    """With little of everything; the whole of it is a slow test."""
    demo.run(tmp_path / "demo", 0, demo.Size(problems=12, prompts=32, held_out=8, picked=8))
    shown = capsys.readouterr().out
    assert "Next, on a GPU" in shown and "What happened" in shown
    picked = (tmp_path / "demo" / "best-of-n.csv").read_text()
    for name in ("oracle (Pass@N)", "likelihood", "majority vote", "tiny-rm", "random per text (null)"):
        assert name in picked and f"best of 50: {name}" in shown
    for name in ("fig2b", "best-of-n", "fig3"):
        assert {p.suffix for p in Path(tmp_path / "demo").glob(f"{name}.*")} == {".png", ".pdf", ".csv"}


@pytest.mark.slow
def test_the_demo(tmp_path, irlens):
    shown = irlens("demo", "--out", tmp_path / "demo").stdout
    assert "Next, on a GPU" in shown and "What happened" in shown
    for name in ("fig2b", "best-of-n", "fig3"):
        assert {p.suffix for p in Path(tmp_path / "demo").glob(f"{name}.*")} == {".png", ".pdf", ".csv"}
