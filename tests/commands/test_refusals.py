"""A judge's server that refuses some questions: they are not judged and counted, the rest goes on, and the next start asks again."""

import errno
import json
import os

import numpy as np
import pandas as pd
import pytest

import irlens as package
from irlens import tables
from irlens.base import files
from irlens.rerank.judge_server import JudgeServer
from irlens.rerank.questions import Journal

N = 10


@pytest.fixture
def draws(tmp_path):
    """`draws(name, length)`: a folder of two draws to each of N prompts, of so many letters; the fourth prompt is awful."""

    def write(name, length):
        rows = [
            (f"p{i}", f"{'An awful' if i == 3 else 'A fine'} question, {i}?", f"{name}-{i}/{d}", "x" * length(i, d), d)
            for i in range(N)
            for d in range(2)
        ]
        frame = pd.DataFrame(rows, columns=["query_id", "query", "doc_id", "text", "draw"])
        run = tables.run(frame.assign(score=-frame["draw"])).drop(columns="reward")
        files.write_parquet(run, tmp_path / name / "run.parquet")
        files.write_parquet(
            run[["query_id", "doc_id"]].assign(relevance=run["draw"] % 2), tmp_path / name / "qrels.parquet"
        )
        return tmp_path / name

    return write


@pytest.fixture
def asking(serve, tmp_path):
    """Starts a judge who likes the longer answer; returns the words that name it, and what it was asked so far."""
    log = tmp_path / "asked.jsonl"

    def start(**settings):
        url = serve("commands/judge_server.py", **{"log": str(log), "verdict": "7"} | settings)
        return ["--base-url", url, "--concurrency", 1, "--store", "none"]

    return start, lambda: len(log.read_text().splitlines()) if log.exists() else 0


def test_rerank_goes_on_and_asks_again(draws, asking, irlens, tmp_path, made):
    start, asked = asking
    run, out = draws("mine", lambda i, d: 5 + i + 3 * d), tmp_path / "out"
    told = ["rerank", run, "--reranker", "judge"]
    done = irlens(*told, *start(filter="awful"), "--out", out)
    assert "judge: 2 of 20 responses are not judged" in done.stdout and "(400 content policy)" in done.stdout
    rows, manifest = tables.read_run(out), json.loads((out / "manifest.json").read_text())
    of_it = rows["query_id"] == "p3"
    assert rows[of_it]["refused"].tolist() == ["400 content policy"] * 2 and (rows[~of_it]["refused"] == "").all()
    assert rows[of_it]["reward"].tolist() == [0.5, 0.5] and set(rows[~of_it]["reward"]) == {0.0, 1.0}
    assert manifest["refused"] == 2 and manifest["asked"] == 4 * (N - 1) and asked() == 2 * N
    irlens(*told, *start(filter="awful"), "--out", out)
    assert asked() == 2 * N + 2  # the refused ones alone
    willing = start()
    done = irlens(*told, *willing, "--out", out)
    assert asked() == 2 * N + 4 and "not judged" not in done.stdout and "checksum" not in done.stdout
    irlens(*told, *willing, "--out", tmp_path / "whole")
    ours, whole = made(out), made(tmp_path / "whole")
    journal = "shards/judge/answers.jsonl"  # in the order of asking
    assert {name for name in ours if ours[name] != whole[name]} <= {journal}
    assert len(ours[journal].splitlines()) == 2 * N and "refused" not in tables.read_run(out).columns
    assert "finished by this command before" in irlens(*told, *willing, "--out", out).stdout


def test_a_grade_that_is_refused_is_the_mean_of_the_others(draws, asking, irlens, tmp_path):
    start, _ = asking
    run = draws("mine", lambda i, d: 7 if (i, d) == (4, 1) else 5 + d)
    words = ["--reranker", "judge:pointwise,length"]
    done = irlens("best-of-n", run, *words, *start(filter="x" * 7), "--at", "1,2", "--out", tmp_path / "out")
    assert "judge:pointwise: 1 of 20 responses are not judged" in done.stdout
    facts = json.loads((tmp_path / "out" / "manifest.json").read_text())["rerankers"]["judge:pointwise"]
    assert facts["refused"] == 1 and facts["asked"] == 19
    assert "finished" not in json.loads((tmp_path / "out" / "manifest.json").read_text())


def test_compare_leaves_out_what_was_refused_and_says_so(draws, asking, irlens, tmp_path):
    start, asked = asking
    runs = [draws("short", lambda i, d: 5 + i + d), draws("long", lambda i, d: 8 + i + d)]
    told, out = ["compare", *runs, "--judge", "pairwise"], tmp_path / "out"
    done = irlens(*told, *start(filter="awful"), "--out", out)
    assert "--judge pairwise: 1 of 10 comparisons are not judged" in done.stdout
    kept = pd.read_parquet(out / "preferences.parquet")
    assert len(kept) == N - 1 and (kept["preference"] == 1).all() and "p3" not in set(kept["query_id"])
    assert set(pd.read_csv(out / "values.csv")["n"]) == {N - 1}
    assert "1 of 10 comparisons are not judged" in (out / "compare.md").read_text()
    assert json.loads((out / "manifest.json").read_text())["refused"] == 1
    done, before = irlens(*told, *start(), "--out", out), asked()
    assert before == 2 * N + 2 and "not judged" not in done.stdout + (out / "compare.md").read_text()
    assert len(pd.read_parquet(out / "preferences.parquet")) == N
    line = irlens(*told, *start(filter="question"), "--out", tmp_path / "other", code=2).stderr.splitlines()[-1]
    assert "refused each of the first 8 questions: 400 content policy" in line
    assert not (tmp_path / "other").exists()  # nothing that is dear


def test_a_win_rate_by_a_graders_server_counts_it_too(asking, irlens, tmp_path):
    start, _ = asking
    for name, size in (("base", 5), ("mine", 6)):
        rows = [
            {"instruction": f"{'Awful' if i == 3 else 'Fine'} {i}?", "output": "x" * size, "generator": name}
            for i in range(N)
        ]
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
    words = ["winrate", tmp_path / "mine.json", "--baseline", tmp_path / "base.json", "--judge", "judge:pointwise"]
    done = irlens(*words, *start(filter="Awful"), "--resamples", 5, "--out", tmp_path / "out")
    assert "1 of 10 pairs have no preference (refused 1)" in done.stdout
    pairs = pd.read_parquet(tmp_path / "out" / "judgements.parquet").set_index("instruction")
    assert pairs.loc["Awful 3?", "reason"] == "refused: 400 content policy" and pairs["preference"].isna().sum() == 1
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["refused"] == 1


def test_names_that_no_trec_file_holds_are_refused_before_a_judge_is_asked(draws, asking, refused, tmp_path):
    start, asked = asking
    run = draws("my own", lambda i, d: 5 + i + 3 * d)
    line = refused("rerank", run, "--reranker", "judge", *start(), "--out", tmp_path / "out")
    assert "doc_id 'my own-0/0' has white space" in line and not asked() and not (tmp_path / "out").exists()


def test_answers_are_kept_one_by_one(draws, asking, irlens, tmp_path, monkeypatch):
    """The server dies in the midst of a shard: what it had answered is asked for no more."""
    start, asked = asking
    monkeypatch.setitem(JudgeServer.__init__.__kwdefaults__, "tries", 2)
    monkeypatch.setitem(JudgeServer.__init__.__kwdefaults__, "pause", 0.01)
    told = ["rerank", draws("mine", lambda i, d: 5 + i + 3 * d), "--reranker", "judge", "--out", tmp_path / "out"]
    line = irlens(*told, *start(die_after=9), code=2).stderr.splitlines()[-1]
    assert "the answers so far are kept, and the same command continues them" in line
    before = asked()
    irlens(*told, *start())
    assert asked() - before == 2 * N - 9


def test_without_a_folder_answers_are_kept_while_the_judge_lives(draws, asking, tmp_path):
    start, _ = asking
    url = start(filter="awful")[1]
    run = tables.read_run(draws("mine", lambda i, d: 5 + i + 3 * d))
    found = package.reranker("judge", base_url=url)(run)
    assert (found["refused"] != "").sum() == 2 and found["reward"].isna().sum() == 0
    rates = package.preferences(
        {"a": run, "b": run.assign(text=run["text"] + "y")}, package.reranker("judge", base_url=url)
    )
    assert len(rates) == N - 1 and sum(map(bool, rates.attrs["refused"])) == 1
    assert np.allclose(rates["preference"], 1)


def test_a_full_disk_while_answers_come(draws, asking, irlens, tmp_path, monkeypatch):
    """One line, and the same command asks for the answers that found no room, and those that were on their way."""
    start, _ = asking
    whole, room = Journal.add, [6]

    def add(journal, key, said):
        if room[0] == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(journal.path))
        room[0] -= 1
        whole(journal, key, said)

    told = ["rerank", draws("mine", lambda i, d: 5 + i + 3 * d), "--reranker", "judge", "--out", tmp_path / "out"]
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "add", add)
        line = irlens(*told, *start(), code=2).stderr.splitlines()[-1]
    assert line.startswith("irlens: ") and "the disk is full" in line and " free at /" in line
    again = tmp_path / "again.jsonl"
    irlens(*told, *start(log=str(again)))
    assert len(again.read_text().splitlines()) == 2 * N - 6
