"""Inputs of `load.py`: tables and files of any size, the same in every run, and the command lines that read them."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd

PROBLEMS = 1319  # as GSM8K's test split has
ANSWERS = 5000  # gold answers are whole numbers from 2 to below that

STEPS = """First we look at what is given. There are {a} boxes with {b} pieces in each, so {a} * {b} = {c} pieces at first.
Then some are given away, which leaves fewer of them; we count what is left in draw {draw}, step by step.
"""
ENDS = (
    "So in all there are {n}.\n#### {n}",
    "Therefore, the answer is ${n}.",
    "**Final Answer:** \\boxed{{{n}}}",
    "The answer is {n} pieces, as 3 + 4 = 7 were given away.",
    "That leaves {n} of them",
    "I cannot say how many are left, sorry.",
)
SHORT = ("#### {n}",)


def problems(folder: Path, count: int) -> np.ndarray:
    """Writes `count` problems as GSM8K has them, with solutions; returns their gold answers."""
    golds = np.random.default_rng(0).integers(2, ANSWERS, count)
    folder.mkdir()
    with (folder / "test.jsonl").open("w", encoding="utf-8") as file:
        for i, gold in enumerate(golds):
            row = {"question": f"Problem {i}: how many are there in all?", "answer": f"Counting.\n#### {gold}"}
            file.write(json.dumps(row) + "\n")
    return golds


def draws(golds: np.ndarray, rows: int, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    """(a run of `rows` draws in turn over problems, all different, answers in the forms that models write; which are meant
    right)."""
    rng = np.random.default_rng(seed)
    problem, draw = np.arange(rows) % len(golds), np.arange(rows) // len(golds)
    right = rng.random(rows) < 0.5
    said = np.where(right, golds[problem], rng.integers(2, ANSWERS, rows))
    forms = rng.integers(0, len(ENDS), rows)
    a, b = rng.integers(2, 90, (2, rows))
    numbers = zip(a.tolist(), b.tolist(), said.tolist(), forms.tolist())
    texts = [STEPS.format(a=x, b=y, c=x * y, draw=i) + ENDS[f].format(n=n) for i, (x, y, n, f) in enumerate(numbers)]
    run = pd.DataFrame({
        "query_id": [f"problems-test-{i:05d}" for i in problem],
        "doc_id": [f"d{i}" for i in range(rows)],
        "score": -draw.astype(np.float32),
        "rank": draw,
        "text": texts,
        "query": [f"Problem {i}: how many are there in all?" for i in problem],
        "finish_reason": "stop",
        "draw": draw,
    })  # fmt: skip
    return run, right & (forms < len(ENDS) - 1)


def judged(folder: Path, run: pd.DataFrame, right: np.ndarray) -> str:
    """Writes a folder of draws and their judgements; returns its name."""
    folder.mkdir(exist_ok=True)
    run.to_parquet(folder / "run.parquet")
    run[["query_id", "doc_id"]].assign(relevance=right.astype(int)).to_parquet(folder / "qrels.parquet")
    return str(folder)


# -- loads ---------------------------------------------------------------------------------------------------------


def verify(folder: Path, rows: int) -> list[str]:
    """`irlens verify`: responses to GSM8K-like problems."""
    run, _ = draws(problems(folder / "problems", PROBLEMS), rows)
    run.drop(columns="draw").to_parquet(folder / "run.parquet")
    return ["verify", str(folder / "run.parquet"), "--dataset", str(folder / "problems"), "--verifier", "gsm8k"]


def evaluate(folder: Path, rows: int) -> list[str]:
    """`irlens evaluate`: 1,000 documents a query, a tenth of them judged, four measures."""
    rng = np.random.default_rng(0)
    query, place = np.divmod(np.arange(rows), 1000)
    run = pd.DataFrame({
        "query_id": pd.Series(query).map("q{:06d}".format),
        "doc_id": pd.Series(rng.permutation(rows)).map("d{:08d}".format),
        "score": (1000 - place + rng.random(rows)).astype(np.float32),
        "rank": place,
    })  # fmt: skip
    run.to_parquet(folder / "run.parquet")
    some = run[rng.random(rows) < 0.1]
    qrels = some[["query_id", "doc_id"]].assign(relevance=rng.integers(0, 3, len(some)))
    qrels.to_parquet(folder / "qrels.parquet")
    return ["evaluate", str(folder / "run.parquet"), str(folder / "qrels.parquet"), "nDCG@10 RR AP Success@100"]


def mine(folder: Path, rows: int) -> list[str]:
    """`irlens mine-negatives`: 16 draws a problem at two temperatures, judged by answer."""
    count = rows // 16
    run, _ = draws(problems(folder / "problems", count), rows)
    run["temperature"] = np.where(run["draw"] % 2, 0.7, 1.0)
    run.to_parquet(folder / "run.parquet")
    command = ["mine-negatives", "--run", str(folder / "run.parquet"), "--dataset", str(folder / "problems")]
    return [*command, "--split", "test", "--limit", str(count), "--tier", "easy,hard,hardest", "--no-hardness"]


def best_of_n(folder: Path, rows: int) -> list[str]:
    """`irlens best-of-n`: 1,000 draws a problem, with rewards and answers to vote on."""
    run, right = draws(problems(folder / "problems", rows // 1000), rows)
    run["score"] = (right + np.random.default_rng(1).normal(size=rows)).astype(np.float32)
    judged(folder / "run", run, right)
    return ["best-of-n", str(folder / "run"), "--dataset", str(folder / "problems"), "--verifier", "gsm8k"]


def compare(folder: Path, rows: int) -> list[str]:
    """`irlens compare`: two judged runs of that many draws each, of the same problems."""
    golds = problems(folder / "problems", PROBLEMS)
    both = [judged(folder / name, *draws(golds, rows, seed)) for name, seed in (("one", 0), ("other", 1))]
    return ["compare", *both, "--dataset", str(folder / "problems"), "--split", "test"]


def import_(folder: Path, rows: int) -> list[str]:
    """`irlens import`: JSON lines of another tool, a judged response each."""
    golds = np.random.default_rng(0).integers(2, ANSWERS, PROBLEMS)
    run, right = draws(golds, rows)
    table = run[["query_id", "text"]].assign(prompt=run["query"], correct=right)
    table = table.rename(columns={"text": "response"})
    table.to_json(folder / "draws.jsonl", orient="records", lines=True)
    return ["import", str(folder / "draws.jsonl")]


def export(folder: Path, rows: int) -> list[str]:
    """`irlens export --to trl`: lists cut from ten draws of each of that many problems, as training cuts them."""
    run, right = draws(np.random.default_rng(0).integers(2, ANSWERS, rows // 10), rows)
    return ["export", judged(folder / "run", run, right), "--to", "trl"]


def recall(folder: Path, rows: int) -> list[str]:
    """`irlens recall --retriever bm25`: an index of short passages, 1,000 questions."""
    rng = np.random.default_rng(0)
    words = np.array([f"w{i}" for i in range(50_000)])
    text = words[np.minimum(rng.zipf(1.2, (rows, 20)) - 1, len(words) - 1)]
    asked = rng.integers(0, rows, 1000)
    corpus = ({"_id": f"d{i}", "title": "", "text": " ".join(some)} for i, some in enumerate(text))
    questions = ({"_id": f"q{i}", "text": " ".join(text[row][:6])} for i, row in enumerate(asked))
    for name, lines in (("corpus", corpus), ("queries", questions)):
        with (folder / f"{name}.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)
    (folder / "qrels").mkdir()
    lines = [f"q{i}\td{row}\t1\n" for i, row in enumerate(asked)]
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(lines), encoding="utf-8")
    return ["recall", "--retriever", "bm25", "--dataset", str(folder)]


def winrate(folder: Path, rows: int) -> list[str]:
    """`irlens winrate`: that many annotations, 805 prompts a system, plain and length-controlled."""
    rng = np.random.default_rng(0)
    system, prompt = np.divmod(np.arange(rows), 805)
    better, lengths = rng.random(rows), rng.integers(5, 80, rows)
    with (folder / "annotations.json").open("w", encoding="utf-8") as file:
        json.dump(
            [
                {
                    "instruction": f"Prompt {i}: what is it?",
                    "dataset": "helpful_base",
                    "output_1": "It is what it is. " * 20,
                    "generator_1": "baseline",
                    "output_2": "It may be another. " * length,
                    "generator_2": f"system {s:03d}",
                    "annotator": "judge",
                    "preference": 1 + value,
                }
                for s, i, value, length in zip(system.tolist(), prompt.tolist(), better.tolist(), lengths.tolist())
            ],
            file,
        )
    return ["winrate", str(folder / "annotations.json")]


def again(folder: Path, rows: int) -> list[str]:
    """`irlens rerank` told anew what is done: a finished folder, its run and its checked shards of scores."""
    run, right = draws(np.random.default_rng(0).integers(2, ANSWERS, PROBLEMS), rows)
    command = ["rerank", judged(folder / "run", run, right), "--reranker", "length", "--out", str(folder / "out")]
    subprocess.run([sys.executable, "-m", "irlens", *command], check=True, stdout=subprocess.DEVNULL)
    return command
