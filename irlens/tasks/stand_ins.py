"""Stand-ins of data sets for a rehearsal: a few made-up rows in the files, columns and formats that the real loaders read."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

from irlens.tasks import alpacaeval, gsm8k, math, nq, ultrafeedback

ROWS = 24  # problems of a split
PASSAGES = 320  # more than the paper's largest N, 300
LONG = 1200  # words of the one prompt that is over the paper's limit of 1,000 tokens
WHO = ("Ada", "Bo", "Cy", "Di", "Ed", "Flo")
WHAT = ("cups", "pens", "nuts", "keys", "hats", "figs", "maps", "jars")
ASKED = (
    "Name a city by the sea and say why people go there.",
    "Write two lines about rain.",
    "How do I boil an egg?",
    "Explain what a library is to a child.",
    "List three uses of a spoon.",
    "What should I pack for a walk in the hills?",
    "Say in one sentence what a bridge is for.",
    "Suggest a name for a small boat.",
)


def write_hub(home: Path) -> None:
    """The named data sets of the hub, in a cache of their own: Parquet files as the loaders look for them."""
    from irlens.models.hub import cached_as

    for split, start in (("train", 0), ("test", ROWS)):
        problems = [_problem(i) for i in range(start, start + ROWS)]
        name = f"{split}-00000-of-00001.parquet"
        rows = [
            {"question": q, "answer": f"{a} + {b} = <<{a}+{b}={a + b}>>{a + b}\n#### {a + b}"} for q, a, b in problems
        ]
        _parquet(rows, cached_as(home, gsm8k.REPO, "dataset") / "main" / name)
        rows = [
            {"problem": q, "level": "Level 1", "type": "Algebra", "solution": f"${a}+{b}$ is $\\boxed{{{a + b}}}$."}
            for q, a, b in problems
        ]
        for subject, some in (("algebra", rows[: ROWS // 2]), ("geometry", rows[ROWS // 2 :])):
            _parquet(some, cached_as(home, math.REPO, "dataset") / subject / name)
    for part in ultrafeedback.PARTS:
        rows = [{"context_messages": [{"role": "user", "content": text}]} for text in _prompts(part)]
        folder = cached_as(home, ultrafeedback.REPO.format(part), "dataset")
        _parquet(rows, folder / "data" / "train-00000-of-00001.parquet")
    _write_alpacaeval(cached_as(home, alpacaeval.REPO, "dataset"))


def _write_alpacaeval(folder: Path) -> None:
    """AlpacaEval's prompts with a baseline's answers, and the files of its length control."""
    answers = [f"It depends on {'many ' * (i % 4)}things." for i in range(len(ASKED))]
    about = {"dataset": "made_up", "generator": "gpt4_1106_preview"}
    rows = [{"instruction": text, "output": said} | about for text, said in zip(ASKED, answers)]
    (folder / alpacaeval.FILES["baseline"]).write_text(json.dumps(rows), encoding="utf-8")
    hard = [(i % 3 - 1) / 2 for i in range(len(ASKED))]
    lines = ["index,instruction_difficulty", *(f"{i},{value}" for i, value in enumerate(hard))]
    (folder / alpacaeval.FILES["difficulty"]).write_text("\n".join(lines) + "\n", encoding="utf-8")
    lines = ["model,index,preference,std_delta_len,instruction_difficulty,not_gamed_baseline"]
    for name, delta in (("concise", 1.5), ("verbose", -1.5)):
        lines += [f"{name},{i},{0.5 - delta / 5 + i / 100},{delta + i / 10},{value},0" for i, value in enumerate(hard)]
    (folder / alpacaeval.FILES["gamed"]).write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_mixeval(version: Path) -> None:
    """A folder in the layout of MixEval: four questions of either kind, half of them in the hard set too."""
    about = {"context": None, "benchmark_name": "GSM8k"}
    free = [
        about | {"problem_type": "free-form", "prompt": _problem(i)[0], "target": [str(sum(_problem(i)[1:]))]}
        for i in range(4)
    ]
    chosen = {"problem_type": "single-choice", "options": ["one", "two", "three"], "benchmark_name": "BoolQ"}
    choice = [about | chosen | {"prompt": f"{_problem(i)[0]} Choose.", "target": [_problem(i)[2]]} for i in range(4)]
    for split, some in (("mixeval", slice(None)), ("mixeval-hard", slice(2))):
        for kind, records in (("free-form", free), ("multiple-choice", choice)):
            path = version / split / f"{kind}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({str(i): one for i, one in enumerate(records[some])}), encoding="utf-8")


def _problem(i: int) -> tuple[str, int, int]:
    """A word problem and its two numbers; its answer is 2 or 3, so that a policy taught for seconds is right at times."""
    a, b = 1, 1 + i % 2
    who, what = WHO[i % len(WHO)], WHAT[i // len(WHO) % len(WHAT)]
    return f"{who} has {a} of the {what} and finds {b} more. How many {what} does {who} have?", a, b


def _prompts(part: int) -> list[str]:
    """Prompts without answers; the last of the second part is longer than the paper allows."""
    found = [f"{text} (Part {part}.)" for text in ASKED]
    return [*found, " ".join(["again"] * LONG)] if part == 2 else found


def _parquet(rows: list[dict], path: Path) -> None:
    import pandas as pd

    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_parquet(path, index=False)


def write_nq(home: Path) -> None:
    """Natural Questions on DPR's passages, as ir_datasets finds them under `home` (its IR_DATASETS_HOME, which must be set):
    the archives that it downloads, and its store of the passages."""
    folder = home / "dpr-w100"
    folder.mkdir(parents=True, exist_ok=True)
    with gzip.open(folder / "docs.tsv.gz", "wt", encoding="utf-8") as file:
        file.write("id\ttext\ttitle\n")
        file.writelines(f'{i}\t"{text}"\t{title}\n' for i, text, title in _passages())
    for split, start in (("dev", 1), ("train", 1 + ROWS)):
        asked = [
            {
                "question": f"where does the road number {i} lead",
                "answers": [f"Hill {i}"],
                "positive_ctxs": [{"passage_id": str(i), "score": 1000}],
                "hard_negative_ctxs": [{"passage_id": str(i + 1), "score": 5}],
                "negative_ctxs": [],
            }
            for i in range(start, start + ROWS)
        ]
        with gzip.open(folder / f"nq-{split}.json.gz", "wt", encoding="utf-8") as file:
            json.dump(asked, file)
    import ir_datasets

    ir_datasets.load(f"{nq.ID}/dev").docs_store().build()  # else it counts the real passages


def write_beir(folder: Path, split: str) -> None:
    """A BEIR folder of the same passages, for a collection of ir_datasets that has no stand-in of its own."""
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    rows = [{"_id": str(i), "title": title, "text": text} for i, text, title in _passages()]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    asked = [{"_id": f"q{i}", "text": f"where does the road number {i} lead"} for i in range(1, ROWS + 1)]
    (folder / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked), encoding="utf-8")
    judged = "".join(f"q{i}\t{i}\t1\n" for i in range(1, ROWS + 1))
    (folder / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + judged, encoding="utf-8")


def with_few_answers(path: Path, to: Path) -> Path | None:
    """A copy, at `to`, of the rows of one's own JSON-lines data whose answers are the commonest, ROWS or a few more of each
    split: so a policy taught for seconds is right at times. None for data in which nothing tells right from wrong."""
    from irlens import tasks
    from irlens.base.files import read_lines
    from irlens.tasks.contract import SUFFIX, split_files

    files = split_files(path, SUFFIX) if path.is_dir() else {SUFFIX.sub("", path.name): path}
    for split, file in files.items():
        task = tasks.load(path, split)
        if task.verifier is None or "answers" not in task.topics.columns:
            return None
        golds = task.topics["answers"].str[0]
        counts = golds.value_counts(sort=True)
        enough = counts[counts.cumsum().shift(fill_value=0) < ROWS].index
        kept = golds[golds.isin(enough)].index[: 2 * ROWS]
        lines = [line for _, line in read_lines(file)]
        place = to / f"{split}.jsonl"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("".join(lines[i] + "\n" for i in kept), encoding="utf-8")
    return to if path.is_dir() else place


def _passages() -> list[tuple[int, str, str]]:
    """(number, text, title) of every passage."""
    return [(i, f"The road number {i} leads over the water to Hill {i}.", f"Road {i}") for i in range(1, PASSAGES + 1)]
