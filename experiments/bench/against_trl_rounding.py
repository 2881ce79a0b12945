"""Where irlens and TRL's DPOTrainer part on one seed: losses and gradients of both, in float32 and with float64 weights.

    python experiments/bench/against_trl_rounding.py OUT [--seed 1] [--steps 52]

Trains on the pairs that against_trl.py left in OUT/seed-1 (or makes them). Beside this file: against_trl_rounding.csv, a row
per step: each trainer's loss and the length of its gradient before clipping, and how far their weights lie apart.
"""

import argparse
import json
import tempfile
from pathlib import Path

import against_trl as bench
import pandas as pd
import torch
from transformers import TrainerCallback

from irlens.base import seeds
from irlens.models import catalog, load
from irlens.train import trainer as trainers
from irlens.train.options import TrainOptions


class Watch(TrainerCallback):
    """Keeps the weights after each step, in float64, and ends the training after so many."""

    def __init__(self, steps: int):
        self.steps, self.weights = steps, []

    def on_step_end(self, args, state, control, model=None, **_):
        self.weights.append(torch.cat([p.detach().flatten().double() for p in model.parameters()]))
        control.should_training_stop = state.global_step >= self.steps


def by_irlens(model, every: list, seed: bench.Seed, watch: Watch):
    """`irlens train --lists` without its folder."""
    more = json.dumps({"logging_steps": 1, "warmup_steps": bench.WARMUP, "save_strategy": "no"})
    given = {"batch_lists": bench.STEP, "lists_at_once": bench.PASS, "learning_rate": bench.RATE, "trainer_args": more}
    options = TrainOptions(objective="pairwise", epochs=1, seed=seed.number, **given)
    options = options.of_model(catalog.model("tiny"), max(example.longest for example in every))
    stock, tokenizer = trainers.RankingTrainer, load.tokenizer(catalog.fetch(catalog.model("tiny")))
    trainers.RankingTrainer = lambda *args, callbacks, **more: stock(*args, callbacks=[*callbacks, watch], **more)
    try:
        with tempfile.TemporaryDirectory() as folder:
            return trainers.train(model, tokenizer, every, options, Path(folder), 1)
    finally:
        trainers.RankingTrainer = stock


def by_trl(model, every: list, seed: bench.Seed, watch: Watch):
    """DPOTrainer, as against_trl.py has it."""
    number = seeds.derive(seed.number, 1, "training")
    order = [i for i in bench.Steps(len(every), bench.STEP, bench.PASS, 1, number, lambda: 0) if i < len(every)]
    rows = [json.loads(line) for line in (seed.out / "pairs.jsonl").read_text(encoding="utf-8").splitlines()]
    with tempfile.TemporaryDirectory() as folder:
        made = bench.dpo_trainer(model, [rows[i] for i in order], Path(folder))
        made.add_callback(watch)
        made.train()
    return made


def watched(train, seed: bench.Seed, dtype: torch.dtype, steps: int) -> tuple[list[dict], list[torch.Tensor]]:
    """(losses and gradients' lengths, weights) of the steps of one trainer."""
    every, watch = bench.examples(seed.out / "pairs.jsonl"), Watch(steps)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)  # that of references and grades
    try:
        model = load.causal_lm(catalog.fetch(catalog.model("tiny")), device="cpu").to(dtype)
        made = train(model, every, seed, watch)
    finally:
        torch.set_default_dtype(before)
    log = [entry for entry in made.state.log_history if "grad_norm" in entry]
    return [{"loss": entry["loss"], "gradient": float(entry["grad_norm"])} for entry in log], watch.weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="the --out of against_trl.py")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=52)
    given = parser.parse_args()
    torch.set_num_threads(1)
    seed = bench.Seed(given.seed, 500, 500, given.out / f"seed-{given.seed}")
    seed.out.mkdir(parents=True, exist_ok=True)
    bench.preferences(seed)
    table = pd.DataFrame({"seed": given.seed, "step": range(1, given.steps + 1)})
    for dtype in (torch.float32, torch.float64):
        name, weights = str(dtype).removeprefix("torch."), []
        for who, train in (("irlens", by_irlens), ("trl", by_trl)):
            log, after = watched(train, seed, dtype, given.steps)
            weights.append(after)
            for what in ("loss", "gradient"):
                table[f"{who}_{name}_{what}"] = [entry[what] for entry in log]
        table[f"apart_{name}"] = [(one - other).norm().item() for one, other in zip(*weights)]
    table.to_csv(Path(__file__).with_suffix(".csv"), index=False, float_format="%.10g")


if __name__ == "__main__":
    main()
