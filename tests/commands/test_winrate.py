"""The command winrate: judges at a stub server, rerankers, stored annotations, what is missing, broken or killed."""

import gzip
import json
import math

import numpy as np
import pandas as pd
import pytest

import irlens as package
from irlens.rerank import pair_protocols

PARTS = "[Request]\n{instruction}\n[Answer A]\n{output_1}\n[Answer B]\n{output_2}\nReply with nothing but a word."
WEIGHTED, CALL, LIST = "weighted_alpaca_eval_gpt4_turbo", "alpaca_eval_gpt4_turbo_fn", "alpaca_eval_llama3_70b_fn"
N = 24


def write(path, rows):
    path.write_text(json.dumps(rows))
    return path


def outputs(system, length, n=N):
    """Model outputs of n prompts; `length(i)` characters to the i-th."""
    return [
        {"dataset": "own", "instruction": f"Question {i}?", "output": "x" * length(i), "generator": system}
        for i in range(n)
    ]


@pytest.fixture
def contest(tmp_path):
    """Arguments of a contest whose system's answers are longer to even questions, and the same to the first."""
    write(tmp_path / "base.json", outputs("base", lambda i: 50))
    write(tmp_path / "mine.json", outputs("mine", lambda i: 50 if i == 0 else 80 if i % 2 == 0 else 20))
    (tmp_path / "template.txt").write_text(
        f"<|im_start|>system\nBe fair.\n<|im_end|>\n<|im_start|>user\n{PARTS}\n<|im_end|>"
    )
    return ["winrate", tmp_path / "mine.json", "--baseline", tmp_path / "base.json", "--resamples", 30]


@pytest.fixture
def judge(serve, tmp_path):
    """Starts the judge at a server, which logs its questions; returns the arguments that name it, and the log."""

    def start(name, *more, template=None, **settings):
        log = tmp_path / "questions.jsonl"
        url = serve("commands/judge_server.py", log=str(log), **settings)
        if name != "pairwise":
            more = (*more, "--template", template or tmp_path / "template.txt")
        return ["--judge", name, "--base-url", url, *more], log

    return start


def questions(log):
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def values(folder):
    return pd.read_csv(folder / "results.csv").set_index("measure")


def test_a_weighted_judge(contest, judge, irlens, tmp_path):
    """m and M by their weights, in the order that the instruction throws; no question where the answers are the same."""
    told, log = judge(WEIGHTED)
    irlens(*contest, *told, "--out", tmp_path / "out")
    asked = questions(log)
    assert len(asked) == N - 1
    assert {(q["max_tokens"], q["temperature"], q["top_p"], q["top_logprobs"]) for q in asked} == {(1, 1.0, 1.0, 5)}
    pairs = pd.read_parquet(tmp_path / "out" / "judgements.parquet")
    for row in pairs.itertuples():
        a, b = len(row.output_1), len(row.output_2)
        p = 1 / (1 + math.exp((a - b) / 100))  # that the system wins, whoever is shown first
        assert row.preference == pytest.approx(1.5 if row.instruction == "Question 0?" else 1 + p)
        if row.instruction != "Question 0?":
            turned = pair_protocols.is_switched(row.instruction)
            assert (row.switched if turned else row.as_it_is) == row.preference
            assert math.isnan(row.as_it_is if turned else row.switched)
    found = values(tmp_path / "out").loc["WinRate"]
    assert found["value"] == pytest.approx((pairs["preference"] - 1).mean()) and found["n"] == N
    assert found["judge"] == f"{WEIGHTED} (stub)" and found["low"] < found["value"] < found["high"]
    assert set(pd.read_csv(tmp_path / "out" / "leaderboard.csv")["judge"]) == {f"{WEIGHTED} (stub)"}


@pytest.mark.parametrize("name", [CALL, LIST, "pairwise"])
def test_a_discrete_judge(name, contest, judge, irlens, tmp_path):
    """By the forced call, the list of ranks, or a letter: the longer answer wins in whatever order it is shown."""
    listed = tmp_path / "list.txt"
    listed.write_text(PARTS + " [list]")
    told, log = judge(name, template=listed if name == LIST else None)
    irlens(*contest, *told, "--out", tmp_path / "out")
    pairs = pd.read_parquet(tmp_path / "out" / "judgements.parquet")
    longer = pairs["output_2"].str.len() > pairs["output_1"].str.len()
    assert (pairs["preference"][1:] == np.where(longer, 2, 1)[1:]).all() and pairs["preference"][0] == 1.5
    assert 0 < pairs["switched"].notna().sum() < N - 1  # shown both ways round
    assert {q["temperature"] for q in questions(log)} == {0.0}
    if name == CALL:
        assert questions(log)[0]["tool_choice"]["function"]["name"] == questions(log)[0]["tools"][0]["function"]["name"]
    found = values(tmp_path / "out")
    assert found.loc["WinRate", "value"] == found.loc["DiscreteWinRate", "value"] == pytest.approx(11.5 / 24)


def test_both_orders_take_the_mean(contest, judge, irlens, tmp_path):
    told, log = judge("pairwise", "--both-orders")
    irlens(*contest, *told, "--out", tmp_path / "out")
    assert len(questions(log)) == 2 * (N - 1)
    pairs = pd.read_parquet(tmp_path / "out" / "judgements.parquet")
    assert pairs["preference"].tolist() == [1.5] + [1.0, 2.0] * 11 + [1.0]
    assert (pairs["as_it_is"][1:] == pairs["switched"][1:]).all()  # this judge has no position that it likes
    assert set(values(tmp_path / "out")["judge"]) == {"pairwise (stub), both orders"}


@pytest.fixture
def impatient(monkeypatch):
    """A server that is gone is given up after three tries at once."""
    from irlens.rerank.judge_server import JudgeServer

    for name, value in (("tries", 3), ("pause", 0.01)):
        monkeypatch.setitem(JudgeServer.__init__.__kwdefaults__, name, value)


def test_every_answer_is_kept_as_it_comes(contest, judge, impatient, irlens, tmp_path):
    """The server dies half-way, twice: one line each; the same command asks what is missing, and nothing twice."""
    out, said = tmp_path / "out", []
    for _ in range(2):
        args, log = judge("pairwise", "--concurrency", 1, "--timeout", 2, die_after=6)
        said.append(irlens(*contest, *args, "--out", out, code=2).stderr.splitlines()[-1])
    assert all("gave up after 3 tries" in line and "the same command continues" in line for line in said)
    before = len(questions(log))
    assert len((out / "answers.jsonl").read_text().splitlines()) == 12
    args, log = judge("pairwise")
    done = irlens(*contest, *args, "--out", out)
    assert "12 are answered already" in done.stdout and "not as it was written" not in done.stdout
    assert len(questions(log)) - before == N - 1 - 12 and values(out).loc["WinRate", "n"] == N


def test_answers_that_an_older_list_names_are_kept(contest, judge, impatient, irlens, tmp_path):
    """A folder whose checksums.txt tells an earlier state of the answers: each line has a checksum, and all stay."""
    out = tmp_path / "out"
    args, _ = judge("pairwise", "--concurrency", 1, "--timeout", 2, die_after=6)
    irlens(*contest, *args, "--out", out, code=2)
    with (out / "checksums.txt").open("a") as file:
        file.write(f"{'0' * 64}  answers.jsonl\n")
    args, _ = judge("pairwise")
    assert "6 are answered already" in irlens(*contest, *args, "--out", out).stdout


def test_a_system_without_any_preference_is_named(contest, judge, refused, irlens, tmp_path):
    notes = [{"instruction": f"Q{i}", "output_1": "aa", "output_2": "b", "generator_2": s, "annotator": "j", "preference": p}
             for i in range(3) for s, p in (("good", 2), ("mute", None))]  # fmt: skip
    line = refused("winrate", write(tmp_path / "a.json", notes), "--out", tmp_path / "out")
    assert "mute: none of its 3 prompts has a preference by j" in line


def test_a_killed_command_asks_nothing_twice(contest, judge, kill_and_continue, tmp_path):
    """Killed while answers come, and begun again: every question was asked once, but for those that were on their way."""
    told, log = judge("pairwise", "--concurrency", "2", "--store", "none", delay=0.15)
    args = [*map(str, contest), *map(str, told)]
    kill_and_continue(args, tmp_path / "killed", lambda _: len(questions(log)) >= 8)
    assert N - 1 <= len(questions(log)) <= N - 1 + 2
    assert values(tmp_path / "killed").loc["WinRate", "value"] == pytest.approx(11.5 / 24)


def test_an_answer_that_is_damaged_is_asked_for_again(contest, judge, irlens, tmp_path):
    told, log = judge("pairwise")
    first = irlens(*contest, *told, "--out", tmp_path / "out")
    assert "23 questions to the judge" in first.stdout
    journal = tmp_path / "out" / "answers.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    flipped = lines[3].replace(b'"reason": ""', b'"reason": "?"')
    journal.write_bytes(b"".join([*lines[:3], flipped, *lines[4:-1]]) + lines[-1][:40])  # one changed, the last cut off
    (tmp_path / "out" / "results.csv").unlink()
    second = irlens(*contest, *told, "--out", tmp_path / "out")
    assert "2 answers cannot be read: asked again" in second.stdout and len(questions(log)) == N - 1 + 2
    assert values(tmp_path / "out").loc["WinRate", "value"] == pytest.approx(11.5 / 24)


def test_answers_are_found_by_another_command(contest, judge, irlens, tmp_path):
    told, log = judge("pairwise")
    for name in ("one", "two"):
        irlens(*contest, *told, "--out", tmp_path / name, "--store", tmp_path / "store")
    assert len(questions(log)) == N - 1
    assert json.loads((tmp_path / "two" / "manifest.json").read_text())["answers_found"] == N - 1
    assert values(tmp_path / "one").equals(values(tmp_path / "two"))


def test_a_judge_that_refuses_or_answers_out_of_format(contest, judge, irlens, tmp_path):
    """Asked twice, then counted, never drawn at random; what was refused is asked again at the next start."""
    told, log = judge("pairwise", refuse="Question 7?", nonsense="Question 9?")
    done = irlens(*contest, *told, "--out", tmp_path / "out")
    assert "2 of 24 pairs have no preference (" in done.stdout
    pairs = pd.read_parquet(tmp_path / "out" / "judgements.parquet").set_index("instruction")
    assert pairs.loc["Question 7?", "reason"] == "refused: 400 content policy"
    assert pairs.loc["Question 9?", "reason"] == "unreadable"
    asked = [q for q in questions(log) if any("Question 9?" in m["content"] for m in q["messages"])]
    assert [len(q["messages"]) for q in asked] == [1, 3] and "cannot be read" in asked[1]["messages"][-1]["content"]
    found = values(tmp_path / "out").loc["WinRate"]
    assert (found["n"], found["missing"]) == (N - 2, 2)
    for start in (1, 2, 3):  # answers that come later are taken as written, too
        count = len(questions(log))
        said = irlens(*contest, *told, "--out", tmp_path / "out").stdout
        assert len(questions(log)) == count + 1, start  # the refused one
        assert "without a checksum" not in said and "not as it was written" not in said


def test_a_judge_of_whom_nothing_can_be_read_is_given_up(contest, judge, irlens, tmp_path):
    told, _ = judge(WEIGHTED, nonsense="Question")
    line = irlens(*contest, *told, "--out", tmp_path / "out", code=2).stderr.splitlines()[-1]
    assert "gave 8 answers and none can be read" in line and "I would rather not say." in line


def test_the_cost_is_counted_before_the_first_call(contest, judge, refused, irlens, tmp_path):
    told, log = judge(WEIGHTED, "--max-calls", 10, "--price", "10,30")
    line = refused(*contest, *told, "--out", tmp_path / "out")
    assert "23 questions to the judge, about " in line and "at most about $0.0" in line and "--yes asks them" in line
    assert not questions(log)
    irlens(*contest, *told, "--out", tmp_path / "out", "--yes")
    entry = json.loads((tmp_path / "out" / "annotations" / "mine.json").read_text())[1]
    spent = questions(log)[0]["messages"][-1]["content"]
    assert entry["price_per_example"] == pytest.approx((len(spent) // 4 * 10 + 3 * 30) / 1e6, rel=0.3)


def test_a_reranker_judges_by_its_scores(contest, irlens, tmp_path):
    irlens(*contest, "--judge", "length", "--out", tmp_path / "out")
    pairs = pd.read_parquet(tmp_path / "out" / "judgements.parquet")
    assert (pairs["preference"] == 1.5 + 0.5 * np.sign(pairs["reward_2"] - pairs["reward_1"])).all()
    assert set(values(tmp_path / "out")["judge"]) == {"length"}
    python = package.winrate(
        pairs[["instruction", "output_1", "output_2", "generator_1", "generator_2"]],
        package.reranker("length"),
        resamples=0,
    )
    assert python.set_index("measure")["value"].to_dict() == values(tmp_path / "out")["value"].to_dict()
    assert len(python.per_query) == 3 * N  # of each win rate a value per prompt


def test_annotations_come_back_as_they_went(contest, irlens, tmp_path):
    """Exported in AlpacaEval's layout, read again, and as the judge of the same outputs."""
    irlens(*contest, "--judge", "length", "--out", tmp_path / "out")
    file = tmp_path / "out" / "annotations" / "mine.json"
    keys = "instruction output_1 generator_1 dataset output_2 generator_2 annotator preference"
    assert set(json.loads(file.read_text())[0]) >= {
        *keys.split(),
        "price_per_example",
        "time_per_example",
        "raw_completion",
    }
    irlens("winrate", file, "--resamples", 30, "--out", tmp_path / "again")
    irlens(*contest, "--judge", file, "--out", tmp_path / "third")
    whole = values(tmp_path / "out").drop(columns="missing")
    for name in ("again", "third"):
        assert values(tmp_path / name).drop(columns="missing").equals(whole)
    exported = json.loads((tmp_path / "out" / "model_outputs" / "mine.json").read_text())
    assert exported == json.loads((tmp_path / "mine.json").read_text())


def test_a_run_is_a_system(irlens, tmp_path):
    irlens("sample", "--dataset", "sums", "--limit", 6, "-n", 2, "--out", tmp_path / "run")
    rows = pd.read_parquet(tmp_path / "run" / "run.parquet").drop_duplicates("query_id")
    base = [{"instruction": q, "output": "1", "generator": "one"} for q in rows["query"]]
    write(tmp_path / "base.json", base)
    done = irlens("winrate", tmp_path / "run", "--baseline", tmp_path / "base.json", "--judge", "length", "--resamples", 0,
                  "--out", tmp_path / "out")  # fmt: skip
    assert "12 draws of 6 prompts: the first of each competes" in done.stdout
    pairs = pd.read_parquet(tmp_path / "out" / "judgements.parquet")
    assert pairs["output_2"].tolist() == rows["text"].tolist() and set(pairs["generator_1"]) == {"one"}


def test_thoughts_are_no_part_of_an_answer(irlens, tmp_path):
    """What competes follows the thought; one that never closes leaves nothing."""
    said = ["<think>on and on</think>ok", "<think>on and on", "<think></think>yes"]
    rows = [(f"q{i}", f"q{i}/0", f"Q{i}", text, 0, 0.0, 0) for i, text in enumerate(said)]
    columns = ["query_id", "doc_id", "query", "text", "draw", "score", "rank"]
    pd.DataFrame(rows, columns=columns).to_parquet(tmp_path / "run.parquet")
    write(tmp_path / "base.json", [{"instruction": f"Q{i}", "output": "four", "generator": "one"} for i in range(3)])
    irlens("winrate", tmp_path / "run.parquet", "--thought", "<think>,</think>", "--baseline", tmp_path / "base.json", "--judge",
           "length", "--resamples", 0, "--out", tmp_path / "out")  # fmt: skip
    assert pd.read_parquet(tmp_path / "out" / "judgements.parquet")["output_2"].tolist() == ["ok", "", "yes"]


def test_prompts_are_joined_by_their_text(contest, irlens, tmp_path):
    """Another order of the file is the same contest."""
    irlens(*contest, "--judge", "length", "--out", tmp_path / "out")
    rows = json.loads((tmp_path / "mine.json").read_text())
    write(tmp_path / "mine.json", rows[::-1])
    irlens(*contest, "--judge", "length", "--out", tmp_path / "turned")
    assert values(tmp_path / "out").equals(values(tmp_path / "turned"))


def test_an_incomplete_system_is_refused_or_measured_over_what_it_has(contest, refused, irlens, tmp_path):
    rows = json.loads((tmp_path / "mine.json").read_text())
    write(tmp_path / "mine.json", rows[3:])
    line = refused(*contest, "--judge", "length")
    assert "of 24 prompts some are missing: mine 3 (the first: 'Question 0?'); --allow-missing" in line
    done = irlens(*contest, "--judge", "length", "--allow-missing", "--out", tmp_path / "out")
    assert "some are missing: mine 3" in done.stdout and values(tmp_path / "out").loc["WinRate", "n"] == N - 3
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["missing"] == {"mine": 3}


def test_wrong_input_is_one_line(contest, refused, serve, tmp_path):
    base, mine = tmp_path / "base.json", tmp_path / "mine.json"
    rows = json.loads(mine.read_text())
    notes = [{"instruction": f"Q{i}", "output_1": "a", "output_2": "b", "preference": 1.5} for i in range(4)]
    cases = {
        "winrate: name the outputs": ("winrate",),
        "hold only the baseline, mine": ("winrate", mine, "--baseline", mine, "--judge", "length"),
        "nowhere.json: no such run, file or folder": ("winrate", tmp_path / "nowhere.json"),
        "--judge nobody: no such judge; known: ": ("winrate", mine, "--baseline", "nowhere.json", "--judge", "nobody"),
        "name the baseline": ("winrate", mine, "--judge", "length"),
        "no such file, and no system of the outputs": ("winrate", mine, "--baseline", "nobody", "--judge", "length"),
        "holds no preferences; give --judge": contest,
        "did you mean 'pairwise'": (*contest, "--judge", "pairwisee"),
        "--judge pairwise needs --base-url": (*contest, "--judge", "pairwise"),
        "pip install --no-deps alpaca-eval": (*contest, "--judge", WEIGHTED, "--base-url", serve()),
        "--template": (*contest, "--judge", WEIGHTED, "--template", mine, "--base-url", serve()),
        "two numbers from 0 on": (*contest, "--judge", "length", "--price", "1"),
        "--gamed needs --difficulty": (*contest, "--judge", "length", "--gamed", mine),
        "says nothing about two answers": (*contest, "--judge", "random"),
        "answers 1 prompts twice": ("winrate", write(tmp_path / "twice.json", [*rows, rows[4]]), *contest[2:], "--judge", "length"),
        "not from 1 to 2 (the first, number 3, is 2.5)": (
            "winrate", write(tmp_path / "high.json", [n | {"preference": 2.5 if n["instruction"] == "Q2" else 1} for n in notes]),
        ),
        "annotations without a preference": ("winrate", write(tmp_path / "none.json", [{k: v for k, v in notes[0].items() if k != "preference"}])),
        "preference must be a number or null": ("winrate", write(tmp_path / "text.json", [notes[0] | {"preference": "2"}])),
        "1 prompts are judged twice": ("winrate", write(tmp_path / "again.json", [*notes, notes[0]])),
        "prompts are joined by their text": (
            "winrate", write(tmp_path / "other.json", [{"instruction": "Z", "output": "z", "generator": "z"}]), "--baseline", base,
            "--judge", "length",
        ),
        "has no preference for 24 of 24 pairs": (*contest, "--judge", write(tmp_path / "notes.json", notes)),
    }  # fmt: skip
    for told, args in cases.items():
        assert told in refused(*args, "--out", tmp_path / "out"), told
    assert not (tmp_path / "out" / "results.csv").exists()


def test_missing_and_old_preferences(irlens, tmp_path):
    """-1 and null say nothing, 0 is a draw, and a system of which nothing is known is refused."""
    told = [2, -1, 0, None, 1, 1]
    notes = [{"instruction": f"Q{i}", "output_1": "aa", "output_2": "b", "preference": p} for i, p in enumerate(told)]
    done = irlens("winrate", write(tmp_path / "a.json", notes), "--resamples", 0, "--out", tmp_path / "out")
    assert "2 of 6 pairs have no preference" in done.stdout
    found = values(tmp_path / "out").loc["WinRate"]
    assert (found["value"], found["n"], found["missing"]) == (1.5 / 4, 4, 2)


def test_a_constant_answer_is_pointed_out(contest, irlens, tmp_path):
    rows = [row | {"output": "Here is the best answer."} for row in json.loads((tmp_path / "mine.json").read_text())]
    write(tmp_path / "mine.json", rows)
    done = irlens(*contest, "--judge", "length", "--out", tmp_path / "out")
    assert "mine: gives one and the same answer to 24 of 24 prompts" in done.stdout


# -- as published --------------------------------------------------------------------------------------------------


def test_the_order_is_the_published_one(real_data):
    """Of the 805 instructions 406 are switched, the first among them."""
    with gzip.open(real_data("alpaca/candidates.jsonl.gz"), "rt", encoding="utf-8") as lines:
        found = [pair_protocols.is_switched(json.loads(line)["prompt"]) for line in lines]
    assert len(found) == 805 and sum(found) == 406 and found[0]


def test_the_published_leaderboard_by_the_command(real_data, irlens, tmp_path):
    lists, board = (real_data(f"alpaca/{name}") for name in ("candidates.jsonl.gz", "leaderboard.csv"))
    files = {name: real_data(f"alpaca/{file}") for name, file in
             (("difficulty", "instruction_difficulty.csv"), ("gamed", "df_gamed.surrogate.csv"))}  # fmt: skip
    told = [word for name, file in files.items() for word in (f"--{name}", file)]
    irlens("winrate", lists, *told, "--resamples", 0, "--out", tmp_path / "out")
    ours = pd.read_csv(tmp_path / "out" / "leaderboard.csv", index_col=0)
    published = pd.read_csv(board).set_index("system").reindex(ours.index)
    assert (ours["win_rate"] - published["win_rate"]).abs().max() < 1e-4
    assert (ours["standard_error"] - published["standard_error"]).abs().max() < 1e-6
    off = (ours["length_controlled_winrate"] - published["length_controlled_winrate"]).abs()
    assert off.mean() <= 0.05 and off.max() <= 0.15
    assert (ours["avg_length"] == published["avg_length"]).all()
    pairs = pd.read_parquet(tmp_path / "out" / "judgements.parquet")
    some = pairs[pairs["generator_2"] == "claude-2.1"]
    python = package.winrate(some, **files, resamples=0).set_index("measure")["value"]
    assert 100 * python["LCWinRate"] == pytest.approx(ours.loc["claude-2.1", "length_controlled_winrate"])


def test_difficulty_by_row_is_another_number_for_a_system_that_lacks_prompts(real_data, irlens, tmp_path):
    """Once three prompts are gone, each row behind them has its neighbour's difficulty: the published fault."""
    from irlens.tasks import alpaca

    lists, hard = real_data("alpaca/candidates.jsonl.gz"), real_data("alpaca/instruction_difficulty.csv")
    with gzip.open(lists, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    some = [("", row | {"candidates": row["candidates"][7:8]}) for row in rows[3:]]
    pairs = alpaca.pairs(some)
    write(tmp_path / "a.json", [row | {"preference": row["preference"]} for row in pairs.to_dict("records")])
    write(tmp_path / "prompts.json", [{"prompt": row["prompt"]} for row in rows])
    args = ["winrate", tmp_path / "a.json", "--prompts", tmp_path / "prompts.json", "--difficulty", hard, "--resamples", 0,
            "--allow-missing"]  # fmt: skip
    irlens(*args, "--out", tmp_path / "text")
    irlens(*args, "--by-row", "--out", tmp_path / "row")
    aligned, shifted = (values(tmp_path / name).loc["LCWinRate", "value"] for name in ("text", "row"))
    table = pd.read_csv(hard)["instruction_difficulty"].to_numpy()
    for value, part in ((aligned, table[3:]), (shifted, table[:802])):
        delta = pairs["output_1"].str.len().to_numpy() - pairs["output_2"].str.len().to_numpy()
        expected = package.measure.winrate.length_controlled(pairs["preference"].to_numpy(), delta, part, resamples=0)
        assert value == pytest.approx(expected.value, abs=1e-12)
    assert abs(aligned - shifted) > 0.002


def test_a_server_that_fails_now_and_then_loses_nothing(contest, judge, irlens, tmp_path):
    kinds = ["429", "500", "truncated", "cut", "dropped", "empty"]
    told, log = judge(WEIGHTED, faults=0.4, kinds=kinds)
    irlens(*contest, *told, "--out", tmp_path / "out")
    assert len(questions(log)) > N - 1 and values(tmp_path / "out").loc["WinRate", "n"] == N


def test_systems_against_each_other(contest, irlens, tmp_path):
    """Two systems of one file: each with its rows, and one over the other from their fits."""
    rows = json.loads((tmp_path / "mine.json").read_text()) + outputs("short", lambda i: 5 + i % 3)
    write(tmp_path / "mine.json", rows)
    irlens(*contest, "--judge", "length", "--out", tmp_path / "out")
    board = pd.read_csv(tmp_path / "out" / "leaderboard.csv", index_col=0)
    assert set(board.index) == {"mine", "short"} and set(board["judge"]) == {"length"}
    assert board.loc["short", ["n_wins", "n_wins_base", "n_draws", "win_rate"]].tolist() == [0, N, 0, 0]
    (row,) = pd.read_csv(tmp_path / "out" / "against.csv").to_dict("records")
    assert (row["run"], row["against"], row["judge"]) == ("mine", "short", "length")
    assert 0.5 < row["low"] < row["value"] < row["high"] <= 1
    irlens(*contest[:2], "--baseline", "short", "--judge", "length", "--resamples", 0, "--out", tmp_path / "other")
    assert values(tmp_path / "other").loc["WinRate", ["value", "baseline"]].tolist() == [1.0, "short"]
