"""irlens beside TRL's DPOTrainer on the embedded model: the same pairs in the same steps, both drawn from, compared.

    python experiments/bench/against_trl.py [--seeds 0,1,2] [--prompts 500] [--test 500] [--out irlens-out/against-trl]

Needs the extra `bench`. Of each seed: `tiny` draws 16 responses to training prompts of `sums`, the verifier judges them,
and preference pairs are cut. `irlens train --lists` and DPOTrainer read the same file; DPOTrainer is given the pairs in the
order in which irlens trains on them, as its own order is another. Contrastive and LambdaRank train on lists of four of the
same draws, up to as many response tokens as the pairs have, and 64 responses a step, as the pairs do. Then every policy
draws for the same test problems with the same random numbers, and `irlens compare` tests all pairs of systems on their
means over seeds.

Beside this file: against_trl.csv (a row per system), against_trl_losses.csv, against_trl_tests.csv; figures/against-trl.csv.
What is in --out already is not made again. Seconds are of the whole training, from the file to the saved model.
"""

import argparse
import importlib
import json
import os
import platform
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import load_file

from irlens.base import seeds as random_numbers
from irlens.commands.compare import compare
from irlens.commands.exchange import Compare
from irlens.commands.passk import passk
from irlens.commands.settings import PassK, Train
from irlens.commands.train import train
from irlens.measure import stats
from irlens.models import catalog, load
from irlens.negatives import export
from irlens.negatives.lists import lists as cut
from irlens.retrieve.policy import Policy
from irlens.tables import read_qrels, read_run
from irlens.tasks import load as load_task
from irlens.train import list_files
from irlens.train.data import tokenise
from irlens.train.in_memory import prompt_ids
from irlens.train.losses import get
from irlens.train.trainer import Steps

HERE, ROOT = Path(__file__).with_suffix(""), Path(__file__).parents[2]
N, AT = 16, (1, 2, 4, 8, 16)  # draws per test problem, and the N of Pass@N
PAIRS, STEP, PASS = 6, 32, 16  # pairs per prompt, pairs of a step and of a pass
RATE, WARMUP = 3e-4, 10  # of Table 3's tiny preset
START, OURS, TRL = "start", "irlens, pairs", "TRL, pairs"
LISTS = {"irlens, contrastive": "contrastive", "irlens, LambdaRank": "lambdarank"}
SYSTEMS = (START, OURS, TRL, *LISTS)


@dataclass(frozen=True)
class Seed:
    """One repetition: its number, how many prompts are trained on and tested, and its folder."""

    number: int
    prompts: int
    test: int
    out: Path

    def folder(self, system: str) -> Path:
        return self.out / system.replace(", ", "-").lower()


# -- what is trained on --------------------------------------------------------------------------------------------


def preferences(seed: Seed) -> dict[str, Path]:
    """System → its file of lists: pairs for both trainers, and lists of four with as many response tokens."""
    paths = {OURS: seed.out / "pairs.jsonl", **{system: seed.out / f"{kind}.jsonl" for system, kind in LISTS.items()}}
    paths[TRL] = paths[OURS]
    if all(path.is_file() for path in paths.values()):
        return paths
    drawn, _ = passk(PassK(dataset="sums", split="train", limit=seed.prompts, n=N, temperature=(1.0,), seed=seed.number,
                           store="none", out=str(seed.out / "drawn")))  # fmt: skip
    run, qrels, task = read_run(drawn), read_qrels(drawn), load_task("sums", "train", seed.prompts)
    asked = {prompt.query_id: prompt.text for prompt in Policy("tiny").prompts(task)}
    made = {"topics": task.topics, "seed": seed.number}
    pairs = export.trl(cut(run, qrels, positives=1, negatives=1, lists=PAIRS, **made), asked)
    pairs = pairs[: len(pairs) // STEP * STEP]  # whole steps: TRL's mean over a shorter one weighs its passes alike
    export.write_jsonl([{name: row[name] for name in ("prompt", "chosen", "rejected")} for row in pairs], paths[OURS])
    budget = sum(map(response_tokens, examples(paths[OURS])))
    for system, kind in LISTS.items():
        shape = get(kind)
        some = cut(run, qrels, positives=shape.positives, negatives=shape.negatives, lists=PAIRS, **made)
        export.write_jsonl(within(rows_of(some, asked), budget, paths[system]), paths[system])
    return paths


def rows_of(lists: pd.DataFrame, asked: dict[str, str]) -> list[dict]:
    """Lists as `prompt, completions, scores`: the first of every prompt, then the second of each."""
    found = []
    for (_, query_id), rows in lists.groupby(["list", "query_id"], sort=True):
        scores = rows["grade"].astype(float).tolist()
        found.append({"prompt": asked[query_id], "completions": rows["text"].tolist(), "scores": scores})
    return found


def within(rows: list[dict], budget: int, path: Path) -> list[dict]:
    """As many of the lists as have no more response tokens than the budget."""
    export.write_jsonl(rows, path)
    kept, spent = [], 0
    for row, example in zip(rows, examples(path), strict=True):
        if spent + response_tokens(example) <= budget:
            kept.append(row)
            spent += response_tokens(example)
    return kept


def examples(path: Path) -> list:
    """The lists of a file as token ids, in its order."""
    tokenizer = load.tokenizer(catalog.fetch(catalog.model("tiny")))
    lists = list_files.read(path)
    return tokenise(lists, prompt_ids(lists, tokenizer), tokenizer)


def response_tokens(example) -> int:
    return sum(map(len, example.responses))


# -- both trainers -------------------------------------------------------------------------------------------------


def trained(seed: Seed, system: str, path: Path) -> dict:
    """A system's training, or what an earlier start of this program found: model, losses, seconds, tokens."""
    folder = seed.folder(system)
    if not (folder / "facts.json").is_file():
        shutil.rmtree(folder, ignore_errors=True)
        every = examples(path)
        wall, cpu = time.monotonic(), time.process_time()
        found = by_trl(seed, path, every, folder) if system == TRL else by_irlens(seed, system, path, folder)
        found |= {"wall_s": time.monotonic() - wall, "cpu_s": time.process_time() - cpu, "lists": len(every)}
        found["responses"] = sum(len(example.responses) for example in every)
        found["response_tokens"] = sum(map(response_tokens, every))
        (folder / "facts.json").write_text(json.dumps(found), encoding="utf-8")
    return json.loads((folder / "facts.json").read_text(encoding="utf-8"))


def by_irlens(seed: Seed, system: str, path: Path, folder: Path) -> dict:
    """`irlens train --lists`, all losses logged. A step has as many responses whatever the size of a list."""
    objective = LISTS.get(system, "pairwise")
    size = 2 if system == OURS else get(objective).positives + get(objective).negatives
    more = {"logging_steps": 1, "warmup_steps": WARMUP}
    train(Train(list_file=str(path), objective=objective, epochs=1, batch_lists=STEP * 2 // size, lists_at_once=PASS,
                learning_rate=RATE, trainer_args=json.dumps(more), seed=seed.number, save_dtype="float32", store="none",
                out=str(folder)), say=str)  # fmt: skip
    log = pd.read_csv(folder / "iteration-1" / "log.csv")
    return {"model": str(folder / "iteration-1" / "model"), "losses": log["loss"].tolist()}


def dpo_trainer(model, rows: list[dict], folder: Path):
    """A DPOTrainer of `model` with irlens' settings, which trains on the pairs in the order in which they stand."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    class InOrder(DPOTrainer):
        """The rows as they stand in the data set."""

        def _get_train_sampler(self, *args):
            return torch.utils.data.SequentialSampler(self.train_dataset)

    start = catalog.fetch(catalog.model("tiny"))
    args = DPOConfig(output_dir=str(folder), beta=catalog.model("tiny").beta, learning_rate=RATE, num_train_epochs=1,
                     lr_scheduler_type="cosine", warmup_steps=WARMUP, per_device_train_batch_size=PASS,
                     gradient_accumulation_steps=STEP // PASS, precompute_ref_log_probs=True, max_grad_norm=1.0,
                     weight_decay=0.0, gradient_checkpointing=False, bf16=False, use_cpu=True, logging_steps=1,
                     save_strategy="no", report_to="none", disable_tqdm=True)  # fmt: skip
    return InOrder(
        model=model, args=args, train_dataset=Dataset.from_list(rows), processing_class=load.tokenizer(start)
    )


def by_trl(seed: Seed, path: Path, every: list, folder: Path) -> dict:
    """DPOTrainer on the pairs in irlens' order, with irlens' settings; references computed beforehand, as irlens does."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    number = random_numbers.derive(seed.number, 1, "training")
    order = [i for i in Steps(len(rows), STEP, PASS, 1, number, lambda: 0) if i < len(rows)]
    start = catalog.fetch(catalog.model("tiny"))
    trainer = dpo_trainer(load.causal_lm(start, device="cpu").float(), [rows[i] for i in order], folder)
    read = [(row["prompt_ids"], [row["chosen_ids"], row["rejected_ids"]]) for row in trainer.train_dataset]
    assert read == [(every[i].prompt, every[i].responses) for i in order], "both trainers must read the same tokens"
    trainer.train()
    trainer.save_model(str(folder / "model"))
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return {"model": str(folder / "model"), "losses": losses}


# -- what came of it -----------------------------------------------------------------------------------------------


def drawn(seed: Seed, system: str, model: str) -> Path:
    """The policy's draws for the test problems, with the random numbers that every other policy has."""
    folder = seed.folder(system).with_name(f"test-{seed.folder(system).name}")
    return passk(PassK(model=model, dataset="sums", split="test", limit=seed.test, n=N, temperature=(1.0,), at=AT,
                       max_tokens=catalog.model("tiny").max_tokens, seed=seed.number, store="none",
                       out=str(folder)))[0]  # fmt: skip


def weights(model: str) -> dict[str, torch.Tensor]:
    return load_file(Path(model) / "model.safetensors")


def apart(ours: str, theirs: str) -> dict[str, float]:
    """How far two trained policies lie apart: the largest difference of a weight, the largest step from the start, and the
    length of the difference over that of the step."""
    start = weights(str(catalog.fetch(catalog.model("tiny"))))
    one, other = weights(ours), weights(theirs)
    between = torch.cat([(one[name] - other[name]).flatten() for name in start])
    moved = torch.cat([(one[name] - start[name]).flatten() for name in start])
    return {"largest_difference": between.abs().max().item(), "largest_step": moved.abs().max().item(),
            "of_the_way": (between.norm() / moved.norm()).item()}  # fmt: skip


def same_draws(one: Path, other: Path) -> float:
    """The share of the draws that are the same word for word."""
    runs = [read_run(folder).set_index("doc_id")["text"] for folder in (one, other)]
    return float((runs[0] == runs[1].reindex(runs[0].index)).mean())


def repetition(seed: Seed) -> tuple[pd.DataFrame, dict, list[dict]]:
    """(run, query_id, measure, value of every system, what is said of each, the losses of both trainers per step)."""
    seed.out.mkdir(parents=True, exist_ok=True)
    paths = preferences(seed)
    turn = SYSTEMS[1:] if seed.number % 2 else (TRL, OURS, *LISTS)  # either first, in turn
    facts = {system: trained(seed, system, paths[system]) for system in turn}
    models = {START: "tiny"} | {system: found["model"] for system, found in facts.items()}
    folders = {system: drawn(seed, system, models[system]) for system in SYSTEMS}
    each = [pd.read_parquet(folder / "per_query.parquet").assign(run=system) for system, folder in folders.items()]
    facts[TRL] |= apart(facts[OURS]["model"], facts[TRL]["model"])
    facts[TRL]["same_draws"] = same_draws(folders[OURS], folders[TRL])
    pairs = enumerate(zip(facts[OURS]["losses"], facts[TRL]["losses"], strict=True), 1)
    losses = [{"seed": seed.number, "step": i, "irlens": a, "trl": b, "difference": a - b} for i, (a, b) in pairs]
    return pd.concat(each).assign(seed=seed.number), facts, losses


def crossed(each: pd.DataFrame, system: str, measure: str):
    """[seeds, problems] of a system's values."""
    some = each[(each["run"] == system) & (each["measure"] == measure)]
    return some.pivot(index="seed", columns="query_id", values="value").to_numpy()


def tests_of(each: pd.DataFrame, out: Path) -> pd.DataFrame:
    """`irlens compare` of the systems' means over seeds, with an interval over seeds and problems beside its own."""
    folders = []
    for system in SYSTEMS:
        some = each[(each["run"] == system) & each["measure"].isin(["Pass@1", f"Pass@{N}"])]
        folder = out / "compared" / system
        folder.mkdir(parents=True, exist_ok=True)
        mean = some.groupby(["query_id", "measure"], as_index=False)["value"].mean()
        mean.assign(run=system).to_parquet(folder / "per_query.parquet")
        folders.append(str(folder))
    shutil.rmtree(out / "compare", ignore_errors=True)
    _, _, tests = compare(Compare(runs=folders, out=str(out / "compare")))
    ends = [stats.crossed_difference(crossed(each, t.after, t.measure) - crossed(each, t.before, t.measure), bounds=(-1, 1))
            for t in tests.itertuples()]  # fmt: skip
    return tests.assign(low_over_seeds=[low for low, _ in ends], high_over_seeds=[high for _, high in ends])


def table_of(each: pd.DataFrame, facts: list[dict], on: str) -> pd.DataFrame:
    """A row per system: Pass@1 and Pass@16 over seeds and problems, and what its training read and took, in the mean over
    seeds; wall seconds are the least, as other work on the machine makes them more."""
    rows = []
    for system in SYSTEMS:
        row: dict = {"system": system}
        for measure in ("Pass@1", f"Pass@{N}"):
            values = crossed(each, system, measure)
            low, high = stats.crossed_interval(values, bounds=(0, 1))
            row[measure] = f"{100 * values.mean():.1f} [{100 * low:.1f}, {100 * high:.1f}]"
        told = pd.DataFrame([found[system] for found in facts if system in found])
        for name in ("lists", "responses", "response_tokens", "cpu_s", "wall_s"):
            value = told[name].min() if name == "wall_s" and len(told) else told[name].mean() if len(told) else None
            row[name] = value and round(value, 1 if name.endswith("_s") else 0)
        row["steps"] = len(told["losses"].iloc[0]) if len(told) else None
        rows.append(row | {"seeds": each["seed"].nunique(), "problems": each["query_id"].nunique(), "machine": on})
    return pd.DataFrame(rows).astype(dict.fromkeys(("lists", "responses", "response_tokens", "steps"), "Int64"))


def agreement(facts: list[dict], losses: pd.DataFrame) -> pd.DataFrame:
    """A row per seed: how far both trainers' losses and weights lie apart, and how often they then say the same."""
    rows = []
    for (number, some), found in zip(losses.groupby("seed"), facts):
        row = {"seed": number, "steps": len(some), "largest_loss_difference": some["difference"].abs().max()}
        row["steps_within_1e-4"] = int(
            (some["difference"].abs() <= 1e-4).cumprod().sum()
        )  # before the first that is not
        row |= {"first_loss": some["irlens"].iloc[0], "last_loss": some["irlens"].iloc[-1]}
        names = ("largest_difference", "largest_step", "of_the_way", "same_draws")
        rows.append(row | {name: found[TRL][name] for name in names})
    return pd.DataFrame(rows)


def curves(each: pd.DataFrame) -> pd.DataFrame:
    """Pass@N by system: the table of the figure."""
    rows = []
    for system in SYSTEMS:
        for n in AT:
            values = crossed(each, system, f"Pass@{n}")
            low, high = stats.crossed_interval(values, bounds=(0, 1))
            row = {"curve": system, "x": n, "value": values.mean(), "low": low, "high": high}
            rows.append(row | {"n": values.shape[1]})
    return pd.DataFrame(rows)


def machine() -> str:
    import transformers
    import trl

    versions = f"torch {torch.__version__}, transformers {transformers.__version__}, TRL {trl.__version__}"
    return f"one thread of {os.cpu_count()} cores ({platform.machine()}), {versions}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", default="0,1,2", help="by commas")
    parser.add_argument("--prompts", type=int, default=500, help="of the split train")
    parser.add_argument("--test", type=int, default=500, help="problems of the split test")
    parser.add_argument("--out", type=Path, default=Path("irlens-out/against-trl"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    for name in ("datasets", "trl.trainer.dpo_trainer"):  # what they load is no part of a training
        importlib.import_module(name)
    numbers = [int(number) for number in given.seeds.split(",")]
    found = [repetition(Seed(s, given.prompts, given.test, given.out / f"seed-{s}")) for s in numbers]
    each, facts = pd.concat([one for one, _, _ in found]), [one for _, one, _ in found]
    losses = pd.DataFrame([row for _, _, rows in found for row in rows])
    print(compared := table_of(each, facts, machine()))
    compared.to_csv(HERE.with_suffix(".csv"), index=False)
    losses.to_csv(HERE.with_name("against_trl_losses.csv"), index=False)
    agreement(facts, losses).to_csv(HERE.with_name("against_trl_seeds.csv"), index=False)
    tests_of(each, given.out).to_csv(HERE.with_name("against_trl_tests.csv"), index=False)
    curves(each).to_csv(ROOT / "figures" / "against-trl.csv", index=False)


if __name__ == "__main__":
    main()
