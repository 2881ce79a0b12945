"""The command arena-hard: stored judgements, a judge at a stub server, what is missing, broken, refused or killed."""

import json

import pandas as pd
import pytest

import irlens as package

N = 12  # questions, two in three of them hard prompts
BASES = {"hard_prompt": "o3-mini-2025-01-31", "creative_writing": "gemini-2.0-flash-001"}


def lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def answer(i, model, text, **more):
    said = [{"role": "user", "content": f"Question {i}?"}, {"role": "assistant", "content": {"answer": text}}]
    return {"uid": f"u{i}", "ans_id": "x", "model": model, "messages": said} | more


def category(i):
    return "creative_writing" if i % 3 == 2 else "hard_prompt"


@pytest.fixture
def bench(tmp_path):
    """The benchmark's folder: questions, two baselines, and a system whose answers are longer to even questions."""
    folder = tmp_path / "arena-hard-v2.0"
    asked = [
        {"uid": f"u{i}", "category": category(i), "subcategory": "s", "prompt": f"Question {i}?"} for i in range(N)
    ]
    lines(folder / "question.jsonl", asked)
    for name in BASES.values():
        lines(folder / "model_answer" / f"{name}.jsonl", [answer(i, name, "x" * 50) for i in range(N)])
    mine = [answer(i, "mine", "x" * (50 if i == 0 else 80 if i % 2 == 0 else 20)) for i in range(N)]
    lines(folder / "model_answer" / "mine.jsonl", mine)
    return folder


def judgement(i, model, first, second, **more):
    games = [
        score if score is None else {"score": score, "judgment": {"answer": "…"}, "prompt": []}
        for score in (first, second)
    ]
    return {"uid": f"u{i}", "category": category(i), "judge": "gpt-4.1", "model": model, "games": games} | more


@pytest.fixture
def judged(bench):
    """The folder of a judge: `mine` a little better in both games, `other` much worse in the first."""
    folder = bench / "model_judgment" / "gpt-4.1"
    lines(folder / "mine.jsonl", [judgement(i, "mine", "B>A", "A>B") for i in range(N)])
    lines(folder / "other.jsonl", [judgement(i, "other", "A>>B", "A=B") for i in range(N)])
    return folder


@pytest.fixture
def judge(serve, tmp_path):
    """Starts the judge at a server, which likes the longer answer; returns the arguments that name it, and its log."""

    def start(*more, **settings):
        log = tmp_path / "questions.jsonl"
        url = serve("commands/judge_server.py", log=str(log), **settings)
        return ["--judge", "own", "--base-url", url, "--resamples", 10, *more], log

    return start


def questions(log):
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def values(folder):
    return pd.read_csv(folder / "results.csv").set_index(["run", "measure"])


def test_stored_judgements_give_the_leaderboard(judged, irlens, tmp_path):
    """By category against its own baseline; `>>` is three games; the folder above says where the answers are."""
    lines(judged.parents[1] / "model_answer" / "other.jsonl", [answer(i, "other", "# z\n- z\n") for i in range(N)])
    done = irlens("arena-hard", judged, "--out", tmp_path / "out")
    found = values(tmp_path / "out")
    assert set(found["judge"]) == {"gpt-4.1"}
    assert found.groupby("category")["baseline"].first().to_dict() == BASES
    assert found.loc[("mine", "WinRate:hard_prompt"), "value"] == 1
    row = found.loc[("other", "WinRate:creative_writing")]
    assert (
        row["value"] == pytest.approx(0.5 / 4) and (row["n"], row["missing"]) == (4, 0) and 0 < row["low"] < row["high"]
    )
    assert {"SCWinRate:hard_prompt", "EqualStyleWinRate:hard_prompt"} <= set(found.index.get_level_values(1))
    assert set(pd.read_csv(tmp_path / "out" / "style.csv")["style"]) == {"characters"}
    assert "hard_prompt against o3-mini" in done.stdout
    python = package.arena_hard(judged, judged.parents[1] / "model_answer")
    assert python.set_index(["run", "measure"])["value"].to_dict() == pytest.approx(found["value"].to_dict())
    again = irlens("arena-hard", judged, "--out", tmp_path / "out")
    assert "nothing is made again" in again.stdout
    irlens("compare", tmp_path / "out", "--measures", "WinRate:hard_prompt", "--out", tmp_path / "compared")


def test_what_is_written_is_read_again(judged, irlens, tmp_path):
    irlens("arena-hard", judged, "--out", tmp_path / "out")
    written = tmp_path / "out" / "model_judgment" / "gpt-4.1"
    first = json.loads((written / "other.jsonl").read_text().splitlines()[0])
    assert first["games"] == [{"score": "A>>B"}, {"score": "A=B"}] and first["baseline"] == BASES["hard_prompt"]
    irlens(
        "arena-hard", tmp_path / "out", "--dataset", judged.parents[1] / "question.jsonl", "--out", tmp_path / "again"
    )
    assert values(tmp_path / "again").equals(values(tmp_path / "out"))


def test_a_judge_is_asked_in_both_orders(bench, judge, irlens, tmp_path):
    """Two games a question, none where the answers are the same; much longer is much better, whoever is shown first."""
    told, log = judge()
    done = irlens("arena-hard", bench / "model_answer" / "mine.jsonl", *told, "--out", tmp_path / "out")
    assert "22 questions to the judge" in done.stdout and len(questions(log)) == 22
    pairs = pd.read_parquet(tmp_path / "out" / "judgements.parquet").set_index("uid")
    assert (pairs.loc["u0", ["as_it_is", "switched"]] == 1.5).all() and pairs.loc["u0", "reason"] == "same answers"
    assert (pairs["as_it_is"] == pairs["switched"]).all()  # this judge has no position that it likes
    assert pairs.loc["u2", "as_it_is"] == 1.75 and pairs.loc["u1", "as_it_is"] == 1.0
    found = values(tmp_path / "out")
    hard = pairs[pairs["category"] == "hard_prompt"]["as_it_is"]
    won, games = (hard == 1.75).sum() * 2 + 1, (hard == 1.75).sum() * 2 + (hard == 1.0).sum() * 6 + 2
    assert found.loc[("mine", "WinRate:hard_prompt"), "value"] == pytest.approx(won / games)
    assert set(found["judge"]) == {"arena-hard own (stub)"}
    assert "name others' judgements beside it" in done.stdout


def test_a_run_competes_beside_published_judgements(judged, judge, irlens, tmp_path):
    """A run's draws are joined by the text of the question; systems that are judged already are asked about no more."""
    bench = judged.parents[1]
    rows = [(f"q{i}", f"q{i}/0", f"Question {i}?", "x" * (i + 45), 0, 0.0, 0) for i in range(N)]
    columns = ["query_id", "doc_id", "query", "text", "draw", "score", "rank"]
    pd.DataFrame(rows, columns=columns).to_parquet(tmp_path / "drawn.parquet")
    told, log = judge()
    irlens("arena-hard", tmp_path / "drawn.parquet", judged, "--dataset", bench, *told, "--out", tmp_path / "out")
    found = values(tmp_path / "out")
    assert {run for run, _ in found.index} == {"mine", "other", "drawn"} and len(questions(log)) == 2 * (N - 1)
    assert found.loc[("drawn", "WinRate:hard_prompt"), "judge"] == "arena-hard own (stub)"


@pytest.mark.slow
def test_a_killed_command_asks_nothing_twice(bench, judge, kill_and_continue, tmp_path):
    told, log = judge("--concurrency", "2", "--store", "none", delay=0.15)
    args = ["arena-hard", str(bench / "model_answer" / "mine.jsonl"), *map(str, told)]
    kill_and_continue(args, tmp_path / "killed", lambda _: len(questions(log)) >= 8)
    assert 22 <= len(questions(log)) <= 24 and values(tmp_path / "killed")["missing"].eq(0).all()


def test_a_judge_that_refuses_or_gives_no_label(bench, judge, irlens, tmp_path):
    """Asked once more, then counted; what was refused is asked again at the next start."""
    told, log = judge(refuse="Question 7?", nonsense="Question 4?")
    args = ("arena-hard", bench / "model_answer" / "mine.jsonl", *told, "--out", tmp_path / "out")
    done = irlens(*args)
    assert "2 of 12 questions have not two verdicts (" in done.stdout and "refused 1" in done.stdout
    assert values(tmp_path / "out").loc[("mine", "WinRate:hard_prompt"), ["n", "missing"]].tolist() == [6, 2]
    asked = [q for q in questions(log) if any("Question 4?" in m["content"] for m in q["messages"])]
    assert [len(q["messages"]) for q in asked] == [2, 2, 4, 4] and "No label" in asked[-1]["messages"][-1]["content"]
    count = len(questions(log))
    irlens(*args)
    assert len(questions(log)) == count + 2  # both games of the refused one


def test_the_cost_is_counted_before_the_first_call(bench, judge, refused, tmp_path):
    told, log = judge("--max-calls", 10, "--price", "10,30")
    line = refused("arena-hard", bench / "model_answer" / "mine.jsonl", *told, "--out", tmp_path / "out")
    assert "22 questions to the judge, about " in line and "--yes asks them" in line and not questions(log)


def test_what_is_missing_is_counted(bench, judged, refused, irlens, tmp_path):
    rows = (judged / "mine.jsonl").read_text().splitlines()
    (judged / "mine.jsonl").write_text("\n".join(rows[2:]) + "\n")
    line = refused("arena-hard", judged, "--out", tmp_path / "out")
    assert "questions are missing: mine, hard_prompt: 2 (the first: u0); --allow-missing" in line
    done = irlens("arena-hard", judged, "--allow-missing", "--out", tmp_path / "out")
    assert "mine, hard_prompt: 2" in done.stdout
    assert values(tmp_path / "out").loc[("mine", "WinRate:hard_prompt"), "n"] == 6


def test_a_category_that_a_system_does_not_answer_is_missing(bench, serve, refused, tmp_path):
    some = lines(tmp_path / "some.jsonl", [answer(i, "mine", "z") for i in range(N) if category(i) == "hard_prompt"])
    line = refused(
        "arena-hard", some, "--dataset", bench, "--judge", "own", "--base-url", serve(), "--out", tmp_path / "out"
    )
    assert "questions are missing: mine, creative_writing: 4 (the first: u11)" in line


def test_judges_are_not_measured_by_themselves(judged, irlens, tmp_path):
    """As published: a judge's own answers, and a baseline against itself, go; and it is said."""
    lines(judged / "judge.jsonl", [judgement(i, "gpt-4.1", "B>A", "A>B") for i in range(N)])
    done = irlens("arena-hard", judged, "--out", tmp_path / "out")
    assert "gpt-4.1: a judge of its own answers, or the baseline itself: 12 rows are left out" in done.stdout
    assert {run for run, _ in values(tmp_path / "out").index} == {"mine", "other"}


def test_wrong_input_is_one_line(bench, judged, refused, serve, tmp_path):
    mine = bench / "model_answer" / "mine.jsonl"
    own = ("--judge", "own")
    good = judgement(0, "mine", "A>B", "A>B")

    def one(name, row):
        return lines(tmp_path / "elsewhere" / f"{name}.jsonl", [row])

    cases = {
        "name judgements": (),
        "no such file or folder": (tmp_path / "nothing",),
        "mine: not judged yet; --judge own": (mine,),
        "--judge own needs --base-url": (mine, *own),
        "all that is named is judged already": (judged, *own),
        "name a checkout": (mine, "--judge", "authors"),
        "no checkout of lmarena": (mine, "--judge", "authors", "--checkout", bench),
        "did you mean 'own'": (mine, "--judge", "oww"),
        "--resamples is 0": (judged, "--parity", "--resamples", 0),
        "two numbers from 0 on": (judged, "--price", "1"),
        "no such file; Arena-Hard's folder holds": (judged, "--dataset", tmp_path),
        "Arena-Hard's questions have uid, category, prompt; found: question_id, category, turns": (
            judged, "--dataset", lines(tmp_path / "others" / "question.jsonl", [{"question_id": 81, "category": "math", "turns": ["a", "b"]}]).parent,
        ),
        "name Arena-Hard's folder by --dataset": (one("away", answer(0, "mine", "x")), *own),
        "two systems are called 'mine'": (mine, mine, *own),
        "baseline nobody: no answers in": (mine, *own, "--baseline", "nobody"),
        "a score must be one of A>>B": (one("label", good | {"games": [{"score": "A"}, None]}),),
        "games must be a list of two": (one("games", good | {"games": [None]}),),
        "uid must be a text": (one("uid", good | {"uid": 3}),),
        "category 'poems' compared with? --baseline": (one("poems", good | {"category": "poems"}),),
        "is there twice": (lines(tmp_path / "elsewhere" / "twice.jsonl", [good, good]),),
        "must hold an answer, a text": (one("said", answer(0, "mine", 3)), "--dataset", bench, *own),
        "metadata needs token_len": (one("meta", answer(0, "mine", "x", metadata={"token_len": -1})), "--dataset", bench, *own),
        "malformed JSON": (one("cut", good).parent / "cut2.jsonl",),
    }  # fmt: skip
    (tmp_path / "elsewhere" / "cut2.jsonl").write_text(json.dumps(good)[:-20] + "\n")
    for told, args in cases.items():
        assert told in refused("arena-hard", *args, "--out", tmp_path / "out"), told
    assert not (tmp_path / "out" / "results.csv").exists()
