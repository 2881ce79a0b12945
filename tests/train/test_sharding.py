"""Weights divided over processes: the training of one process, its checkpoints and its saved model, in less memory."""

import json
import os
import resource
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from irlens.base import seeds
from irlens.base.errors import UserError
from irlens.models import catalog, load
from irlens.train import adapters, trainer
from irlens.train.data import Example
from irlens.train.options import TrainOptions, check_arguments

TINY = catalog.fetch(catalog.model("tiny"))
SGD = {"optim": "sgd", "learning_rate": 0.01}  # it does not amplify rounding
CASES = {  # name → architecture, objective, more options, trainer arguments; the lists divide by nothing
    "tied": ("tiny", "contrastive", {}, {}),
    "gemma2": ("gemma2", "kto", {}, {"gradient_checkpointing": True, **SGD}),
    "adapters": ("mistral", "contrastive", {"lora_rank": 4}, {}),
}


def examples(count: int, mismatched: bool) -> list[Example]:
    """Lists of random tokens and lengths; the third says nothing."""
    generator = torch.Generator().manual_seed(0)

    def some(low, high):
        size = int(torch.randint(low, high, (1,), generator=generator))
        return torch.randint(5, 300, (size,), generator=generator).tolist()

    grades = [[1.0, 0.0, 0.0] if i != 2 else [0.0] * 3 for i in range(count)]
    tiers, zeros = ["positive", "own", "own"], [0.0] * 3
    found = [
        Example(f"q{i}, iteration 1, list 0", some(3, 9), [[*some(2, 7), 1] for _ in range(3)], grades[i], tiers, zeros)
        for i in range(count)
    ]
    return [replace(e, mismatched=found[i - 1].responses[0]) for i, e in enumerate(found)] if mismatched else found


def random_model(kind: str, folder: Path) -> Path:
    """A random model of a real architecture, in bfloat16, with the embedded model's tokenizer."""
    from transformers import AutoConfig, AutoModelForCausalLM

    if kind == "tiny":
        return TINY
    shape = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 4}
    shape |= {"num_key_value_heads": 2, "head_dim": 12, "vocab_size": 585, "eos_token_id": 1, "pad_token_id": 0}
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, max_position_embeddings=256, bos_token_id=None, **shape)
    AutoModelForCausalLM.from_config(config).to(torch.bfloat16).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(TINY / name, folder)
    return folder


def run(case: str, start: Path, folder: Path, shard: bool) -> list[list[float]]:
    """Trains, saves into folder/model, and returns the loss, the gradient's norm and a mean of every step."""
    _, name, more, arguments = CASES[case]
    how = TrainOptions(
        objective=name, learning_rate=1e-3, epochs=2, batch_lists=3, lists_at_once=1, shard=shard, save_dtype="float32",
        trainer_args={"logging_steps": 1, "save_steps": 2, **arguments}, **more,
    )  # fmt: skip
    torch.manual_seed(seeds.folded(0))
    model, tokenizer = adapters.load(start, how.lora_rank, None, shard)
    done = trainer.train(model, tokenizer, examples(7, name == "kto"), how, folder / "checkpoints")
    adapters.save(done, start, tokenizer, "tiny", folder / "model")
    log = [entry for entry in done.state.log_history if "loss" in entry]
    return [[entry[key] for key in ("loss", "grad_norm", "logp_positive", "list_size")] for entry in log]


def launched(kind: str, *args, **env) -> None:
    """This file in two processes under torch's launcher."""
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)} | env
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", __file__, kind]
    done = subprocess.run([*command, *map(str, args)], env=env, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def starts(tmp_path_factory):
    """Architecture → a folder with a model of it."""
    folder = tmp_path_factory.mktemp("starts")
    return {kind: random_model(kind, folder / kind) for kind, *_ in CASES.values()}


@pytest.fixture(scope="module")
def two(tmp_path_factory, starts):
    """The folder in which two processes have trained every case."""
    folder = tmp_path_factory.mktemp("two")
    launched("cases", folder, json.dumps({kind: str(path) for kind, path in starts.items()}))
    return folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load.causal_lm(folder).state_dict()


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_two_processes_with_divided_weights_train_as_one(case, starts, two, tmp_path):
    """References, steps, KTO's zero point of the whole step, adapters merged: the log and the saved model of one process."""
    one = run(case, starts[CASES[case][0]], tmp_path / "one", False)
    both = json.loads((two / case / "log.json").read_text())
    assert len(one) == 2 * 3 and len(both) == len(one)
    for ours, theirs in zip(both, one):
        assert ours[0] == pytest.approx(theirs[0], rel=1e-5) and ours == pytest.approx(theirs, rel=1e-4)
    assert one[0][0] != pytest.approx(one[-1][0], rel=1e-4)
    ours, theirs, start = (weights(f) for f in (two / case / "model", tmp_path / "one/model", starts[CASES[case][0]]))
    assert ours.keys() == theirs.keys()
    moved = sum((theirs[name] - start[name]).abs().sum().item() for name in theirs)
    apart = sum((theirs[name] - ours[name]).abs().sum().item() for name in theirs)
    assert moved > 0 and apart < 1e-3 * moved


@pytest.mark.slow
def test_a_checkpoint_of_divided_weights_continues_as_unbroken(two):
    """Stopped in its fourth step, whose checkpoint is the second: moments, schedule and order of lists are those of before."""
    assert json.loads((two / "broken.json").read_text()) == ["checkpoint-2"]
    assert json.loads((two / "again.json").read_text())["first"] == 3
    ours, theirs = weights(two / "again" / "model"), weights(two / "tied" / "model")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.slow
def test_a_checkpoint_of_several_processes_is_not_one_of_one(two, starts, tmp_path):
    shutil.copytree(two / "tied" / "checkpoints", tmp_path / "checkpoints")
    with pytest.raises(UserError, match="was made with --shard, by several processes"):
        run("tied", starts["tiny"], tmp_path, False)


@pytest.mark.slow
def test_no_process_holds_the_whole_model(tmp_path):
    """30 M parameters, 120 MB: an unshared training holds 5 times that per process, 20 bytes a parameter, under DDP."""
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = {"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 9, "num_attention_heads": 8}
    model = LlamaForCausalLM(LlamaConfig(**shape, vocab_size=585, max_position_embeddings=64))
    size = 4 * model.num_parameters() / 2**20
    model.to(torch.bfloat16).save_pretrained(tmp_path / "m")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(TINY / name, tmp_path / "m")
    peaks = {}
    for shard in (False, True):
        launched("peak", tmp_path / "m", tmp_path / str(shard), int(shard), MALLOC_MMAP_THRESHOLD_="65536")
        peaks[shard] = [json.loads((tmp_path / str(shard) / f"{rank}.json").read_text()) for rank in (0, 1)]
    for whole, part in zip(peaks[False], peaks[True]):
        assert whole["loaded"] > size and part["loaded"] < 0.2 * size
        assert whole["trained"] > 4.5 * size and part["trained"] < 0.6 * whole["trained"]


def test_what_cannot_be_divided_is_refused():
    with pytest.raises(UserError, match="leave --shard out"):
        adapters.check_adapters(16, "4bit", True)
    with pytest.raises(UserError, match="--shard divides it"):
        check_arguments({"fsdp": "full_shard"})
    with pytest.raises(UserError, match="give one of them"):
        TrainOptions(shard=True, trainer_args={"deepspeed": "zero3.json"}).check()
    with pytest.raises(UserError, match="--save-dtype 'half'"):
        TrainOptions(save_dtype="half").check()


# -- one process of `launched` -------------------------------------------------------------------------------------


def cases(out: Path, starts: dict[str, str]) -> None:
    """Every case; the first one again, stopped and continued."""
    for case, (kind, *_) in CASES.items():
        write(out / case / "log.json", run(case, Path(starts[kind]), out / case, True))
    loss = trainer.RankingTrainer.compute_loss

    def breaks(self, *args, **kwargs):
        if self.state.global_step == 3:
            raise KeyboardInterrupt
        return loss(self, *args, **kwargs)

    trainer.RankingTrainer.compute_loss = breaks
    try:
        run("tied", TINY, out / "again", True)
    except KeyboardInterrupt:
        write(out / "broken.json", [path.name for path in (out / "again" / "checkpoints").iterdir()])
    began = []

    def notes(self, *args, **kwargs):
        began.append(self.state.global_step)
        return loss(self, *args, **kwargs)

    trainer.RankingTrainer.compute_loss = notes
    run("tied", TINY, out / "again", True)
    write(out / "again.json", {"first": began[0] + 1})


def peak(start: Path, out: Path, shard: bool) -> None:
    """Megabytes that loading and training added to this process at most."""
    import accelerate  # noqa: F401
    import transformers.trainer  # noqa: F401

    def highest() -> float:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    before, found = highest(), {}
    how = TrainOptions(learning_rate=1e-4, epochs=1, batch_lists=4, lists_at_once=1, shard=shard,
                       trainer_args={"save_strategy": "no"})  # fmt: skip
    model, tokenizer = adapters.load(start, shard=shard)
    found["loaded"] = highest() - before
    trainer.train(model, tokenizer, examples(8, False), how, out / "checkpoints")
    found["trained"] = highest() - before
    (out / f"{os.environ['RANK']}.json").write_text(json.dumps(found))


def write(path: Path, what) -> None:
    """By the first process; the second waits for it."""
    if os.environ["RANK"] == "0":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(what))
    torch.distributed.barrier()


if __name__ == "__main__":
    if sys.argv[1] == "cases":
        cases(Path(sys.argv[2]), json.loads(sys.argv[3]))
    else:
        peak(Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4] == "1")
