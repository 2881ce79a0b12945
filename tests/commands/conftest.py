"""Shared by the commands' tests: runs whose every draw is known, and every command small, as storms run it."""

import json
import random

import pandas as pd
import pytest

from irlens import tables
from irlens.base import files

PROMPTS = 12


def _saved(path, right, name="p"):
    """A folder of draws: of prompt i the draws `right[i]` say whether they are right."""
    rows = [
        (f"{name}-{i}", f"prompt {i}", f"{name}-{i}/{d}", f"#### {i if r else -1}", d, float(r), [str(i)])
        for i, some in enumerate(right)
        for d, r in enumerate(some)
    ]
    columns = ["query_id", "query", "doc_id", "text", "draw", "right", "answers"]
    frame = pd.DataFrame(rows, columns=columns)
    run = tables.run(frame.drop(columns="right").assign(score=-frame["draw"])).drop(columns="reward")
    files.write_parquet(run, path / "run.parquet")
    qrels = frame[["query_id", "doc_id"]].assign(relevance=frame["right"].astype(int))
    files.write_parquet(qrels, path / "qrels.parquet")
    return path


@pytest.fixture
def saved():
    """`saved(folder, right)`: a folder of draws; of prompt i the draws `right[i]` say whether they are right."""
    return _saved


@pytest.fixture
def three(tmp_path):
    """good: right in both draws of all but one prompt; twin: the same; bad: never right."""
    good = [[1, 1]] * (PROMPTS - 1) + [[1, 0]]
    made = {"good": good, "twin": good, "bad": [[0, 0]] * PROMPTS}
    return [str(_saved(tmp_path / name, right)) for name, right in made.items()]


RECIPE = """
title = "two arms"
[study]
claim = "one is better"
measure = "Pass@1"
temperature = 1.0
better = ["b > a"]
[shared.tiny]
stage = "train"
prompts = {prompts}
n = {n}
iterations = 1
epochs = 1
eval_split = "test"
eval_limit = {eval_limit}
eval_n = {eval_n}
[[preset.tiny]]
name = "a"
objective = "pairwise"
[[preset.tiny]]
name = "b"
objective = "contrastive"
"""
TRAIN = "train --prompts 12 -n 4 --epochs 1 --batch-lists 4 --eval-limit 4 --eval-n 2 --test-limit 4"
# Command lines by name: {w} is the folder of inputs; --out and, where it says so, --store are added.
LINES = {
    "sample": "sample --limit 6 -n 4",
    "passk": "passk --limit 6 -n 4 --temperature 0.7,1.0 --at 1,4",
    "passk with a store": "passk --limit 6 -n 4 --temperature 0.7,1.0 --at 1,4 --store",
    "index": "index --retriever tiny-e5 --dataset {w}/beir --shard-size 8 --index HNSW8",
    "recall": "recall --retriever bm25,tiny-e5 --dataset {w}/beir --at 1,5 --shard-size 8",
    "mine-negatives": "mine-negatives --run {w}/p --split test --limit 6 -n 4 --temperature 0.7 --tier hard,top-ranked",
    "rerank": "rerank {w}/p --reranker mean-likelihood",
    "verify": "verify {w}/p --verifier gsm8k",
    "best-of-n": "best-of-n {w}/p --reranker majority,length,mean-likelihood --at 1,2",
    "rewardbench": "rewardbench --data {w}/rewardbench.jsonl --run {w}/p --temperature 0.7 --reranker likelihood --policy tiny",
    "evaluate": "evaluate {w}/p/run.parquet {w}/p/qrels.parquet Pass@2",
    "compare": "compare {w}/p {w}/q --measures Pass@1",
    "import": "import {w}/draws.jsonl",
    "export": "export {w}/p --to trl",
    "temperatures": "temperatures {w}/p {w}/p",
    "winrate": "winrate {w}/mine.json --baseline {w}/base.json --judge length --resamples 5",
    "plot": "plot {w}/p/passk.csv",
    "train": f"{TRAIN} --iterations 2 --same-prompts --export trl",
    "train on lists": "train --lists {w}/t/iteration-1/lists.parquet --dataset sums --epochs 1 --batch-lists 4 --eval-limit 4 --eval-n 2 --test-limit 4",
    "reproduce": "reproduce {w}/arms.toml --jobs 1",
}
PASSING = (
    "wall_seconds",
    "wall_seconds_of_steps",
    "peak_memory_bytes",
    "sampling",
    "finished",
    "checksum",
    "store",
    "argv",
    "git_commit",  # a commit may be made while a storm goes on
)
OWN = (
    "manifest.json",
    "checksums.txt",
    "sampled.json",
    ".lock",
    "index.sqlite",
    "index.sqlite-wal",
    "index.sqlite-shm",
)


@pytest.fixture(scope="session")
def two_arms():
    """A recipe of two arms that differ in their objective, of such sizes."""
    return lambda **sizes: RECIPE.format(**sizes)


@pytest.fixture(scope="session")
def world(tmp_path_factory, two_arms, rewardbench_rows):
    """The folder of what the commands are given."""
    w = tmp_path_factory.mktemp("world")
    rng = random.Random(0)
    words = ["amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heath", "inlet", "jetty", "kelp", "larch"]
    texts = [" ".join(rng.choices(words, k=8)) for _ in range(24)]
    (w / "beir" / "qrels").mkdir(parents=True)
    rows = [{"_id": f"d{i:02d}", "title": "", "text": text} for i, text in enumerate(texts)]
    asked = [{"_id": f"q{i}", "text": " ".join(texts[i].split()[:3])} for i in range(6)]
    for name, some in (("corpus", rows), ("queries", asked)):
        (w / "beir" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    judged = "".join(f"q{i}\td{i:02d}\t1\n" for i in range(6))
    (w / "beir" / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + judged)
    draws = [
        {"query_id": f"q{i % 3}", "prompt": f"What is {i % 3}?", "text": f"It is {i}.", "score": i} for i in range(6)
    ]
    (w / "draws.jsonl").write_text("".join(json.dumps(row) + "\n" for row in draws))
    for name, more in (("base", 0), ("mine", 3)):
        told = [
            {"instruction": f"Question {i}?", "output": "x" * (5 + more * (i % 2)), "generator": name} for i in range(6)
        ]
        (w / f"{name}.json").write_text(json.dumps(told))
    (w / "rewardbench.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rewardbench_rows()))
    (w / "arms.toml").write_text(two_arms(prompts=12, n=4, eval_limit=4, eval_n=2))
    return w


@pytest.fixture(scope="session")
def command(world, irlens):
    """The words of a command line by its name, whose outputs go below `home`; what it is given is made first."""
    given = {"p": LINES["passk"], "q": LINES["passk"] + " --seed 1", "t": TRAIN + " --iterations 1"}

    def words(name, home):
        for folder, line in given.items():
            needed = f"{{w}}/{folder} " in LINES[name] + " " or f"{{w}}/{folder}/" in LINES[name]
            if needed and not (world / folder).is_dir():
                irlens(*line.split(), "--out", world / folder)
        line = LINES[name].format(w=world).split()
        return [*line, *([home / "store"] if line[-1] == "--store" else []), "--out", home / "out"]

    return words


@pytest.fixture(scope="session")
def made():
    """Name → what a command made below a folder, wherever that is: bytes; of a manifest what does not depend on when and how
    often it ran."""

    def read(home):
        found = {}
        for path in sorted(home.rglob("*")):
            name = path.relative_to(home).as_posix()
            if path.name == "manifest.json":
                told = json.loads(path.read_text().replace(str(home), "@"))
                found |= {f"{name} {key}": value for key, value in told.items() if key not in PASSING}
            elif path.is_file() and path.name not in OWN and not name.startswith("store/"):
                found[name] = path.read_bytes().replace(bytes(home), b"@")
        return found

    return read
