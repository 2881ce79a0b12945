"""The commands of the storm (`storm.py`), each as small as it can be and still has all of its phases."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

DRAWS = "--limit 6 -n 3 --temperature 0.7,1.0"
TRAINED = "--prompts 12 -n 4 --epochs 1 --batch-lists 4 --eval-limit 4 --eval-n 2 --store none"


@dataclass(frozen=True)
class Case:
    """A command line, `@` for the folder of inputs; what it finds where it works (`finds`); its share of the kills."""

    name: str
    argv: str
    weight: float = 1.0
    finds: str | None = None


INPUTS = {  # what cases read, made where one is to come that does
    "drawn": f"passk {DRAWS} --store none --out @drawn",
    "other": f"passk {DRAWS} --store none --seed 1 --out @other",
    "stored": f"passk {DRAWS} --store @stored/store --out @stored/one",
    "mined": "mine-negatives --limit 6 -n 3 --temperature 1.0,0.7 --store none --out @mined",
    "reproduced": "reproduce @recipe.toml --seeds 0 --jobs 1 --store none --out @reproduced",
}

CASES = (
    Case("sample", f"sample {DRAWS} --store none --out out"),
    Case("passk", f"passk {DRAWS} --store none --out out", 1.5),
    Case("passk --devices 2", f"passk {DRAWS} --store none --devices 2 --out out", 2),
    Case("passk + store", f"passk {DRAWS} --seed 2 --store store --out out", 1.5),
    Case(
        "passk + store that has it", "passk --limit 6 -n 5 --temperature 0.7,1.0 --store store --out out", 1, "stored"
    ),
    Case("store", "store store --check --prune --max-size 20kB", 1, "stored"),
    Case("verify", "verify @drawn --verifier gsm8k --out out"),
    Case("rerank", "rerank @drawn --reranker likelihood --policy tiny --store store --out out"),
    Case("best-of-n", "best-of-n @drawn --reranker majority,length --store none --out out"),
    Case(
        "rewardbench",
        "rewardbench --data @rewardbench.jsonl --run @drawn --temperature 0.7 --reranker likelihood --policy tiny --store store --out out",
    ),
    Case("mine-negatives", "mine-negatives --limit 6 -n 3 --temperature 1.0,0.7 --store store --out out", 1.5),
    Case("temperatures", "temperatures @drawn @drawn --out out"),
    Case("evaluate", "evaluate @drawn @drawn --out out"),
    Case("compare", "compare @drawn @other --store none --out out"),
    Case("winrate", "winrate @annotations.json --resamples 200 --store none --out out"),
    Case(
        "judges",
        "judges @annotations.json --judge length,mean-likelihood --policy tiny --resamples 50 --store none --out out",
    ),
    Case("mixeval", "mixeval @responses.json @others.json --dataset @mixeval-2024-06-01 --store none --out out"),
    Case("arena-hard", "arena-hard @arena-hard/model_judgment --resamples 50 --store none --out out"),
    Case("mt-bench", "mt-bench @mt-bench/model_judgment --store none --out out"),
    Case("import", "import @draws.jsonl --out out"),
    Case("export", "export @drawn --to every-eval-ever --out out"),
    Case("plot", "plot @drawn/passk.csv --out out"),
    Case("index", "index --index IVF4,Flat --out out"),
    Case("recall", "recall --retriever bm25,tiny-e5 --out out", 1.5),
    Case("train", f"train {TRAINED} --iterations 2 --test-limit 4 --out out", 2),
    Case("train --devices 2", f"train {TRAINED} --iterations 1 --test-limit 0 --devices 2 --out out", 2),
    Case(
        "train + all draws",
        f"train {TRAINED} --iterations 2 --test-limit 4 --objective grpo --schedule constant --keep-optimiser --eval-every 2 --out out",
        1.5,
    ),
    Case("train + rft", f"train {TRAINED} --iterations 2 --test-limit 0 --objective rft --out out", 1.5),
    Case("train --lists", "train --lists @mined/lists.parquet --epochs 2 --batch-lists 4 --out out", 1.5),
    Case(
        "fit-reranker",
        "fit-reranker @drawn --epochs 2 --batch-lists 2 --held-out 0.3 --store none --out out",
        1.5,
    ),
    Case("reproduce --seeds --jobs", "reproduce @recipe.toml --seeds 0,1 --jobs 2 --out out", 2),
    Case("reproduce --devices 2", "reproduce @one.toml --devices 2 --store none --out out", 1.5),
    Case("reproduce --redraw", "reproduce @recipe.toml --redraw @reproduced/per_problem.parquet --out out"),
    Case("reproduce --rehearse", "reproduce @recipe.toml --rehearse --out out"),
)

RECIPE = """title = "A small study of two arms"

[study]
kind = "axis"
claim = "Nothing in particular."
x_label = "temperature of the candidates"

[study.tiny]
temperature = 1.0
x = [0.7, 1.0]
better = ["T0.7 > T1.0"]

[shared.tiny]
stage = "train"
prompts = 12
n = 4
iterations = 1
epochs = 1
eval_split = "test"
eval_limit = 4
eval_n = 2

[[preset.tiny]]
name = "T0.7"
temperature = [0.7]

[[preset.tiny]]
name = "T1.0"
temperature = [1.0]
"""


def write_files(folder: Path) -> None:
    """The inputs that no command makes."""
    (folder / "recipe.toml").write_text(RECIPE)
    arm = RECIPE[: RECIPE.index("[study]")] + RECIPE[RECIPE.index("[shared.tiny]") : RECIPE.rindex("[[preset")]
    (folder / "one.toml").write_text(arm)
    rows = [
        {"prompt": f"What is {i} plus 1?", "response": f"It is {i + d}.", "reward": d % 2}
        for i in range(6)
        for d in range(4)
    ]
    annotated = [
        {"instruction": f"What is {i} plus 1?", "output_1": f"{i + 1}", "output_2": "so " * (i % 3) + str(i + s), "generator_2": f"s{s}",
         "annotator": "a", "preference": 1 + (i + s) % 2}
        for i in range(6) for s in range(2)
    ]  # fmt: skip
    (folder / "annotations.json").write_text(json.dumps(annotated))
    (folder / "draws.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    _write_benchmarks(folder)
    items = [(f"{i}", subset, 1) for subset in ("Math", "Safety") for i in range(4)]
    items += [(f"{kind}:{i}", "Ties", right) for i in range(3) for kind, right in (("ref", 1), ("tied", 2))]
    rows = [
        {
            "id": name,
            "prompt": f"{subset} {name}?",
            "chosen": ["yes"] * right,
            "rejected": ["no", "none"],
            "subset": subset,
        }
        for name, subset, right in items
    ]
    (folder / "rewardbench.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _write_benchmarks(folder: Path) -> None:
    """MixEval with two systems' responses, and Arena-Hard and MT-Bench with judgements of two systems, all in their layouts."""
    asked = {f"{i}": {"problem_type": "free-form", "context": None, "prompt": f"{i} plus 1?", "target": [f"{i + 1}"],
                      "benchmark_name": "GSM8k"} for i in range(6)}  # fmt: skip
    choice = {
        "problem_type": "multiple-choice",
        "context": None,
        "prompt": "Which?",
        "options": ["x", "y"],
        "target": [0],
        "benchmark_name": "ARC",
    }
    shown = "Which?\nA. x\nB. y\nAnswer with the option letter from the given choices directly."
    for split in ("mixeval", "mixeval-hard"):
        _dump(folder / "mixeval-2024-06-01" / split / "free-form.json", asked)
        _dump(folder / "mixeval-2024-06-01" / split / "multiple-choice.json", {"0": choice})
    for s, name in enumerate(("responses", "others")):
        rows = [
            row | {"id": i, "formated_input": f"Question: {row['prompt']}\nAnswer the question. \nLet's think step by step.",
                   "response": f"It is {int(i) + 1 + s * int(i) % 2}."} for i, row in asked.items()
        ]  # fmt: skip
        _dump(folder / f"{name}.json", [*rows, choice | {"id": "0", "formated_input": shown, "response": "A"}])
    for name in ("base", "a", "b"):
        said = [
            {"uid": f"u{i}", "model": name, "messages": [{"role": "assistant", "content": {"answer": name * (i + 1)}}]}
            for i in range(6)
        ]
        _lines(folder / "arena-hard" / "model_answer" / f"{name}.jsonl", said)
    asked = [{"uid": f"u{i}", "category": "all", "prompt": f"Question {i}?"} for i in range(6)]
    _lines(folder / "arena-hard" / "question.jsonl", asked)
    for s, name in enumerate("ab"):
        games = [
            [{"score": ("A>B", "B>A", "A=B")[(i + s) % 3]}, {"score": "A>>B" if i % 2 else "B>A"}] for i in range(6)
        ]
        judged = [
            {"uid": f"u{i}", "category": "all", "judge": "j", "model": name, "baseline": "base", "games": g}
            for i, g in enumerate(games)
        ]
        _lines(folder / "arena-hard" / "model_judgment" / "j" / f"{name}.jsonl", judged)
    turns = [
        {"question_id": 81 + i, "category": ("math", "stem")[i % 2], "turns": ["Why?", "And then?"]} for i in range(6)
    ]
    _lines(folder / "mt-bench" / "question.jsonl", turns)
    grades = [{"question_id": 81 + i, "model": name, "judge": ["j", "single-v1"], "turn": turn, "score": (i + turn + s) % 10 + 1}
              for s, name in enumerate("ab") for i in range(6) for turn in (1, 2)]  # fmt: skip
    _lines(folder / "mt-bench" / "model_judgment" / "j_single.jsonl", grades)


def _dump(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def _lines(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
