"""The command mt-bench: stored grades, a judge at a stub server, two turns drawn one after the other, what is missing."""

import json
import shutil

import pandas as pd
import pytest

import irlens as package

CATEGORIES = ("writing", "math", "writing", "coding")


def lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def answer(i, model="mine", turns=None):
    return {"question_id": 81 + i, "answer_id": "x", "model_id": model, "choices": [{"index": 0, "turns": turns or [f"a{i}", f"b{i}"]}]}  # fmt: skip


def grade(i, turn, score, model="mine"):
    return {
        "question_id": 81 + i,
        "model": model,
        "judge": ["gpt-4", "single-v1"],
        "turn": turn,
        "score": score,
        "judgment": "…",
    }


@pytest.fixture
def bench(tmp_path):
    """The benchmark's folder: questions, references, and a model's answers."""
    folder = tmp_path / "mt_bench"
    asked = [
        {"question_id": 81 + i, "category": c, "turns": [f"First {i}?", f"Then {i}?"]} for i, c in enumerate(CATEGORIES)
    ]
    lines(folder / "question.jsonl", asked)
    lines(folder / "model_answer" / "mine.jsonl", [answer(i) for i in range(4)])
    lines(folder / "reference_answer" / "gpt-4.jsonl", [answer(i, "gpt-4", [f"ra{i}", f"rb{i}"]) for i in (1, 3)])
    return folder


def values(folder):
    return pd.read_csv(folder / "results.csv").set_index("measure")


def test_stored_grades_give_the_table(bench, irlens, tmp_path):
    """-1 is no grade; the folder above says the categories; what is written is read again."""
    stored = lines(bench / "model_judgment" / "gpt-4_single.jsonl",
                   [grade(i, turn, -1 if (i, turn) == (2, 2) else 2 * i + turn) for i in range(4) for turn in (1, 2)])  # fmt: skip
    done = irlens("mt-bench", stored, "--out", tmp_path / "out")
    assert "1 of 8 turns have no grade (no grade 1)" in done.stdout
    found = values(tmp_path / "out")
    assert found.loc["MTBench", "value"] == pytest.approx((1 + 2 + 3 + 4 + 5 + 7 + 8) / 7)
    assert found.loc["MTBench:turn-1", "value"] == 4 and found.loc["MTBench:math", "value"] == 3.5
    assert found.loc["MTBench", "missing"] == 1 and set(found["judge"]) == {"gpt-4"}
    assert (tmp_path / "out" / "model_judgment" / "gpt-4_single.jsonl").is_file()
    irlens("mt-bench", tmp_path / "out", "--dataset", bench, "--out", tmp_path / "again")
    assert values(tmp_path / "again").equals(found)
    python = package.mt_bench(stored, bench).set_index("measure")["value"]
    assert python.to_dict() == pytest.approx(found["value"].to_dict())


def test_a_judge_grades_each_turn_with_references_where_they_are_needed(bench, irlens, serve, tmp_path):
    args = ("mt-bench", bench / "model_answer" / "mine.jsonl", "--judge", "own", "--out", tmp_path / "out")
    done = irlens(*args, "--base-url", serve(reply="It is good. Rating: [[7]]"))
    assert "8 questions to the judge, about " in done.stdout
    found = values(tmp_path / "out")
    assert (found["value"] == 7).all() and set(found["judge"]) == {"mt-bench own (stub)"}
    (tmp_path / "out" / "results.csv").unlink()
    irlens(*args, "--base-url", serve(status=500, delay=9))  # a server that would answer nothing is not asked
    assert (values(tmp_path / "out")["value"] == 7).all()
    told = (*args[:-1], tmp_path / "filtered", "--store", "none", "--base-url")
    done = irlens(*told, serve("commands/judge_server.py", filter="\nra", verdict="[[6]]"))
    assert "4 of 8 turns have no grade (refused 4)" in done.stdout  # both turns of math and of coding


def test_what_cannot_be_read_is_counted_and_what_is_refused_is_asked_again(bench, irlens, serve, tmp_path):
    args = (
        "mt-bench",
        bench / "model_answer" / "mine.jsonl",
        "--judge",
        "own",
        "--out",
        tmp_path / "out",
        "--store",
        "none",
    )
    done = irlens(*args, "--base-url", serve("commands/judge_server.py", filter="Then 2?", verdict="so [[6]]"))
    assert (
        "1 of 8 turns have no grade (refused 1)" in done.stdout
        and values(tmp_path / "out").loc["MTBench", "missing"] == 1
    )
    again = irlens(*args, "--base-url", serve("commands/judge_server.py", verdict="so [[6]]"))
    assert "1 questions to the judge" in again.stdout and values(tmp_path / "out").loc["MTBench", "missing"] == 0


def run_of(path, prompts, texts):
    """A run of chats, one draw each."""
    rows = [
        (f"q{i}", f"q{i}/0", chat[-1]["content"], chat, text, 0, 0.0, 0)
        for i, (chat, text) in enumerate(zip(prompts, texts))
    ]
    columns = ["query_id", "doc_id", "query", "messages", "text", "draw", "score", "rank"]
    pd.DataFrame(rows, columns=columns).to_parquet(path)
    return path


def test_a_run_of_first_turns_gives_the_prompts_of_the_second_and_their_run_is_graded(
    bench, irlens, refused, serve, tmp_path
):
    first = run_of(tmp_path / "first.parquet", [[{"role": "user", "content": f"First {i}?"}] for i in range(4)], "abcd")
    told = ("--dataset", bench, "--judge", "own", "--base-url", serve(reply="so [[8]]"))
    line = refused("mt-bench", first, *told, "--out", tmp_path / "no")
    assert "answers the first turns alone; --second-turn writes" in line
    done = irlens("mt-bench", first, "--dataset", bench, "--second-turn", "--out", tmp_path / "prompts")
    assert "4 prompts of the second turn: irlens sample --dataset" in done.stdout
    rows = [json.loads(line) for line in (tmp_path / "prompts" / "second-turn.jsonl").read_text().splitlines()]
    assert [m["content"] for m in rows[1]["messages"]] == ["First 1?", "b", "Then 1?"]
    second = run_of(tmp_path / "second.parquet", [row["messages"] for row in rows], "wxyz")
    irlens("mt-bench", second, *told, "--out", tmp_path / "out")
    found = values(tmp_path / "out")
    assert (found["value"] == 8).all() and found.loc["MTBench", "n"] == 4
    grades = pd.read_parquet(tmp_path / "out" / "judgements.parquet")
    assert grades["turn"].tolist() == [1, 2] * 4 and grades["question_id"].tolist() == [
        q for q in ("81", "82", "83", "84") for _ in (1, 2)
    ]


@pytest.mark.slow
def test_the_two_turns_are_drawn_one_after_the_other(bench, irlens, serve, tmp_path):
    """A run of first turns, the prompts of the second with its answers in them, a run of these, its grades."""
    url = serve(reply="It is so. [[8]]")
    drawn = (
        "--chat",
        "--engine",
        "openai",
        "--base-url",
        url,
        "--served-model",
        "stub",
        "-n",
        1,
        "--temperature",
        0,
        "--store",
        "none",
    )
    irlens("sample", "--dataset", bench / "question.jsonl", *drawn, "--out", tmp_path / "first")
    done = irlens("mt-bench", tmp_path / "first", "--dataset", bench, "--second-turn", "--out", tmp_path / "prompts")
    assert "4 prompts of the second turn: irlens sample --dataset" in done.stdout
    rows = [json.loads(line) for line in (tmp_path / "prompts" / "second-turn.jsonl").read_text().splitlines()]
    assert [m["content"] for m in rows[1]["messages"]] == ["First 1?", "It is so. [[8]]", "Then 1?"]
    irlens("sample", "--dataset", tmp_path / "prompts" / "second-turn.jsonl", *drawn, "--out", tmp_path / "second")
    irlens(
        "mt-bench",
        tmp_path / "second",
        "--dataset",
        bench,
        "--judge",
        "own",
        "--base-url",
        url,
        "--out",
        tmp_path / "out",
    )
    found = values(tmp_path / "out")
    assert (found["value"] == 8).all() and found.loc["MTBench", "n"] == 4
    assert pd.read_parquet(tmp_path / "out" / "judgements.parquet")["turn"].tolist() == [1, 2] * 4


def test_what_is_missing_is_counted(bench, irlens, refused, tmp_path):
    stored = lines(tmp_path / "some.jsonl", [grade(i, turn, 5) for i in (0, 2) for turn in (1, 2)])
    line = refused("mt-bench", stored, "--dataset", bench, "--out", tmp_path / "out")
    assert "questions are missing: mine: 2 (the first: 82); --allow-missing" in line
    irlens("mt-bench", stored, "--dataset", bench, "--allow-missing", "--out", tmp_path / "out")
    assert values(tmp_path / "out").loc["MTBench", "n"] == 2


def test_wrong_input_is_one_line(bench, refused, tmp_path):
    mine, own = bench / "model_answer" / "mine.jsonl", ("--judge", "own")
    folder = tmp_path / "elsewhere"

    def one(name, row):
        return lines(folder / f"{name}.jsonl", [row])

    cases = {
        "name grades": (),
        "no such file or folder": (tmp_path / "nothing",),
        "mine: not graded yet; --judge own": (mine,),
        "--judge own needs --base-url": (mine, *own),
        "all that is named is graded already": (one("graded", grade(0, 1, 5)), *own),
        "name FastChat's judge_prompts.jsonl": (mine, "--judge", "authors"),
        "did you mean 'own'": (mine, "--judge", "oww"),
        "name MT-Bench's folder by --dataset": (one("away", answer(0)), *own),
        "no such file; MT-Bench's folder holds": (mine, "--dataset", tmp_path),
        "MT-Bench's questions have question_id, category, turns; found: uid": (
            mine, "--dataset", lines(tmp_path / "others" / "question.jsonl", [{"uid": "a", "category": "math", "prompt": "a"}]).parent,
        ),
        "two systems are called 'mine'": (mine, mine, *own),
        "score must be a number from 0 to 10": (one("high", grade(0, 1, 12)),),
        "turn must be 1 or 2": (one("turn", grade(0, 3, 5)),),
        "turns must be two texts": (one("turns", answer(0, turns=["a"])), "--dataset", bench, *own),
        "question_id must be": (one("id", grade(0, 1, 5) | {"question_id": None}),),
        "is there twice": (lines(folder / "twice.jsonl", [grade(0, 1, 5)] * 2),),
        "--second-turn: name one run": (mine, "--second-turn"),
        "two numbers from 0 on": (mine, *own, "--price", "1"),
    }  # fmt: skip
    for told, args in cases.items():
        assert told in refused("mt-bench", *args, "--out", tmp_path / "out"), told
    shutil.rmtree(bench / "reference_answer")
    prompts = [{"name": n, "system_prompt": "s", "prompt_template": t} for n, t in
               (("single-v1", "{question}{answer}"), ("single-math-v1", "{ref_answer_1}{question}{answer}"),
                ("single-v1-multi-turn", "{question_2}{answer_2}"),
                ("single-math-v1-multi-turn", "{ref_answer_1}{question_2}{answer_2}"))]  # fmt: skip
    told = (
        "--judge",
        "authors",
        "--templates",
        lines(folder / "judge_prompts.jsonl", prompts),
        "--base-url",
        "http://x/v1",
    )
    assert "2 questions need a reference answer, the first: 82" in refused(
        "mt-bench", mine, *told, "--out", tmp_path / "out"
    )
