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
