"""The command rewardbench: its folder and page, benchmark and draws alone and together, what it refuses."""

import json

import pandas as pd
import pytest

from irlens import tables
from irlens.base import files


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A folder of judged draws at two temperatures: of 10 prompts 12 each, the answer often right, one of five texts."""
    out = tmp_path_factory.mktemp("drawn") / "p"
    rows = [
        (f"q{i}", f"ask {i}", f"q{i}/{heat:g}/{d}", f"{'so ' * (d % 3)}#### {i if d % 4 < 2 else -d % 3}", d, heat)
        for i in range(10)
        for heat in (0.5, 1.0)
        for d in range(12)
    ]
    frame = pd.DataFrame(rows, columns=["query_id", "query", "doc_id", "text", "draw", "temperature"])
    frame["tag"] = [f"tiny T={heat:g}" for heat in frame["temperature"]]
    files.write_parquet(tables.ranked(frame.assign(score=0.0)), out / "run.parquet")
    right = [int(text.endswith(f"#### {q[1:]}")) for q, text in zip(frame["query_id"], frame["text"])]
    files.write_parquet(frame[["query_id", "doc_id"]].assign(relevance=right), out / "qrels.parquet")
    return out


@pytest.fixture
def bench(rewardbench_rows, tmp_path):
    """RewardBench 2's rows in a file."""
    path = tmp_path / "rb.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rewardbench_rows()))
    return path


def test_the_page_has_everything_and_its_tables_are_beside_it(bench, drawn, irlens, tmp_path):
    line = ("rewardbench", "--data", bench, "--run", drawn, "--temperature", "1.0", "--reranker", "length")
    shown = irlens(*line, "--out", "out", cwd=tmp_path).stdout
    assert "RewardBench 2, %" in shown and "Audit on p" in shown
    out = tmp_path / "out"
    page = (out / "audit.md").read_text()
    headings = ["RewardBench 2", "Right from wrong", "Calibration", "Length", "Over-optimisation"]
    assert [row[3:] for row in page.splitlines() if row.startswith("## ")] == headings
    for name in ("reliability", "over-optimisation"):
        assert f"]({name}.png)" in page and {p.suffix for p in out.glob(f"{name}.*")} == {".png", ".pdf", ".csv"}
    audit = pd.read_csv(out / "audit.csv").set_index(["on", "measure"])
    assert set(audit.index.get_level_values("on")) == {"RewardBench 2", "p"}
    assert audit.loc[("p", "reward and length, Spearman, within prompts"), "value"] == pytest.approx(1)
    picks = pd.read_csv(out / "picks.csv").set_index(["run", "cutoff"])["value"]
    assert picks["oracle", 1] == picks["length", 1] == pytest.approx(picks["random per text", 1])
    assert ("less random per text", 12) in picks and ("own number", 12) in picks
    each = pd.read_parquet(out / "picks.parquet").groupby(["run", "cutoff"])["value"].agg(["mean", "size"])
    assert (each["size"] == 10).all() and each["mean"].to_dict() == pytest.approx(picks[each.index].to_dict())
    results = pd.read_csv(out / "results.csv")
    assert results["measure"].tolist()[-1] == "RewardBench 2" and all(f"| {m} |" in page for m in results["measure"])
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["status"] == "complete" and set(manifest["measured_on"]) == {"RewardBench 2", "p"}
    assert irlens("best-of-n", out / "completions", "--reranker", "score", "--out", "best", cwd=tmp_path)
    best = pd.read_csv(tmp_path / "best" / "quality.csv").set_index(["run", "measure"])["value"]
    assert best["score", "AUC"] == pytest.approx(audit.loc[("RewardBench 2", "AUC, within prompts"), "value"])


def test_draws_alone_or_the_benchmark_alone(bench, drawn, irlens, tmp_path):
    told = (
        "rewardbench",
        "--reranker",
        "majority",
        "--verifier",
        "gsm8k",
        "--run",
        drawn,
        "--temperature",
        "0.5",
        "--out",
        "draws",
    )
    irlens(*told, cwd=tmp_path)
    assert not (tmp_path / "draws" / "results.csv").exists()
    audit = pd.read_csv(tmp_path / "draws" / "audit.csv")
    assert set(audit["on"]) == {"p"} and audit["measure"].str.startswith("true value").any()
    irlens("rewardbench", "--reranker", "length", "--data", bench, cwd=tmp_path)
    out = tmp_path / "irlens-out" / "rewardbench-length"
    assert not (out / "picks.csv").exists() and (out / "per_query.parquet").exists()


def test_two_folders_are_compared_prompt_by_prompt(bench, irlens, tmp_path):
    for name in ("length", "random"):
        irlens("rewardbench", "--reranker", name, "--data", bench, "--out", name, cwd=tmp_path)
    irlens("compare", "length", "random", "--measures", "Math Ties", "--out", "c", cwd=tmp_path)
    tests = pd.read_csv(tmp_path / "c" / "tests.csv").set_index("measure")
    by = [pd.read_csv(tmp_path / name / "results.csv").set_index("measure")["value"] for name in ("length", "random")]
    assert tests["difference"]["Math"] == pytest.approx(by[1]["Math"] - by[0]["Math"]) and tests["n"]["Ties"] == 3


def test_another_benchmark_or_reranker_is_another_folder(bench, irlens, tmp_path):
    irlens("rewardbench", "--reranker", "length", "--data", bench, "--out", "out", cwd=tmp_path)
    bench.write_text(bench.read_text().replace("Math 0?", "Math zero?"))
    again = irlens("rewardbench", "--reranker", "length", "--data", bench, "--out", "out", cwd=tmp_path, code=2)
    assert "was made with data.content" in again.stderr


def test_a_benchmark_that_lacks_a_subset_says_so(bench, irlens, tmp_path):
    rows = [row for row in bench.read_text().splitlines() if '"Safety"' not in row]
    bench.write_text("\n".join(rows))
    told = irlens("rewardbench", "--reranker", "length", "--data", bench, "--out", "out", cwd=tmp_path).stdout
    assert "has no Safety: the mean of the six subsets is not given" in told
    assert len(pd.read_csv(tmp_path / "out" / "results.csv")) == 5


@pytest.mark.parametrize("args, message", [
    ((), "name the reranker with --reranker"),
    (("--reranker", "lenght", "--data", "BENCH"), "did you mean 'length'"),
    (("--reranker", "length", "--data", "nothing.jsonl"), "no such file or folder, and no hub id"),
    (("--reranker", "length"), "--data FILE"),  # the hub's, offline
    (("--reranker", "length", "--data", "BENCH", "--at", "2"), "--at is about the draws of --run"),
    (("--reranker", "length", "--data", "BENCH", "--temperature", "1"), "--temperature is about the draws of --run"),
    (("--reranker", "length", "--data", "BENCH", "--resamples", "-1"), "must be at least 0"),
    (("--reranker", "length", "--run", "DRAWN"), "one pool of draws, and the run has 2 (tiny T=0.5, tiny T=1); --temperature names one"),
    (("--reranker", "length", "--run", "DRAWN", "--temperature", "0.7"), "the run has 0.5, 1"),
    (("--reranker", "length", "--run", "DRAWN", "--temperature", "1", "--at", "13"), "smaller than the largest N"),
    (("--reranker", "length", "--run", "nowhere"), "no such run"),
    (("--reranker", "likelihood", "--data", "BENCH"), "name its model with --policy"),
    (("--reranker", "majority", "--data", "BENCH"), "no short answer to vote on"),
])  # fmt: skip
def test_what_is_refused_before_anything_is_made(args, message, bench, drawn, refused, tmp_path):
    before = set(tmp_path.iterdir())
    places = {"BENCH": bench, "DRAWN": drawn}
    assert message in refused("rewardbench", *(places.get(word, word) for word in args))
    assert set(tmp_path.iterdir()) == before


def test_a_folder_of_another_command_is_named_as_what_it_is(refused, tmp_path):
    (tmp_path / "pairs").mkdir()
    (tmp_path / "pairs" / "manifest.json").write_text(json.dumps({"command": "winrate", "status": "complete"}))
    (tmp_path / "pairs" / "answers.jsonl").write_text('{"a": 1} {}\n')
    line = refused("rewardbench", "--reranker", "length", "--run", tmp_path / "pairs", "--out", tmp_path / "out")
    assert "pairs: is of `irlens winrate` and holds no run.parquet (" in line


def test_draws_that_nobody_judged_or_without_texts(drawn, refused, tmp_path):
    run = tables.read_run(drawn)
    run = run[run["temperature"] == 1.0]
    files.write_parquet(run, tmp_path / "alone.parquet")
    assert "no qrels beside it" in refused("rewardbench", "--reranker", "length", "--run", "alone.parquet")
    files.write_parquet(run.drop(columns="text"), tmp_path / "bare.parquet")
    assert "has no column text" in refused("rewardbench", "--reranker", "random", "--run", "bare.parquet")
    qrels = tables.read_qrels(drawn).assign(relevance=0)
    files.write_parquet(qrels, tmp_path / "q.parquet")
    told = ("--run", "alone.parquet", "--qrels", "q.parquet")
    assert "no candidate is right" in refused("rewardbench", "--reranker", "length", *told)
