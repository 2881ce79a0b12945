"""Seconds and peak memory of a training step: ours, TRL's DPOTrainer and a plain flattened list, interleaved, medians.

    python experiments/bench/training.py [--quick] [--out experiments/bench/training.csv]

A step is the loss of a few lists, its gradients and AdamW. All contenders of a case run in one process and take turns on
the same lists, after a warm-up in which their losses must agree. Peak memory is that of a fresh process per contender:
its resident high-water mark during steps, less what was resident before the model was built, so it counts weights, a
reference model, gradients, AdamW's moments and everything in between (on a GPU: memory allocated there). On a CPU the
clock is the process's CPU seconds, on one thread. The models are small and random; on a GPU they are larger.
TRL is timed through its own collator and `training_step`, its settings as they come but for precision, checkpointing
and length.
"""

import argparse
import copy
import ctypes
import importlib
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from irlens.models.logprobs import layout, pack, response_logprobs
from irlens.train.losses.ranking import contrastive

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
BETA = 0.1
PAD, END = 0, 1
ALWAYS = 10**9  # tokens up to which lists are packed: this compares the packed way
PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12}  # dense bf16 multiplications and additions a second
TRL, TRL_STORED, FLAT, OURS = "TRL", "TRL, reference precomputed", "flattened list", "ours"


@dataclass(frozen=True)
class Case:
    prompt: int
    vocabulary: int
    m: int
    response: tuple[int, int] = (32, 96)  # tokens, drawn evenly
    checkpointing: bool = False
    bf16: bool = False

    @property
    def lists(self) -> int:
        return (8 if DEVICE == "cuda" else 2) if self.m == 2 else (4 if DEVICE == "cuda" else 1)

    @property
    def name(self) -> str:
        extra = [f"responses {self.response[0]}–{self.response[1]}"] if self.response != (32, 96) else []
        extra += ["checkpointing"] * self.checkpointing + ["bf16"] * self.bf16
        return ", ".join([f"prompt {self.prompt}", f"vocabulary {self.vocabulary // 1000}k", f"m = {self.m}", *extra])

    @property
    def contenders(self) -> tuple[str, ...]:
        return (OURS, FLAT, TRL, TRL_STORED) if self.m == 2 else (OURS, FLAT)


SMALL, LARGE = 32_000, 256_000
CASES = (
    Case(128, SMALL, 2),
    Case(512, SMALL, 2),
    Case(128, LARGE, 2),
    Case(512, LARGE, 2),
    Case(128, SMALL, 4),
    Case(512, SMALL, 4),
    Case(128, SMALL, 10),
    Case(512, SMALL, 10),
    Case(128, LARGE, 4),
    Case(128, LARGE, 10),
    Case(512, LARGE, 4),
    Case(512, LARGE, 10),
    Case(128, SMALL, 2, response=(128, 384)),
    Case(128, SMALL, 2, checkpointing=True),
    Case(128, SMALL, 2, checkpointing=True, bf16=True),
)


def build(case: Case, seed: int):
    """A random model: Llama's architecture at the small vocabulary, Gemma2's (capped logits, windows) at the large."""
    gemma = case.vocabulary == LARGE
    width, layers = (2048, 16) if DEVICE == "cuda" else ((192, 6) if gemma else (512, 6))
    shape = {
        "vocab_size": case.vocabulary,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "intermediate_size": width * 11 // 4 // 64 * 64,
        "num_attention_heads": width // 64,
        "num_key_value_heads": max(1, width // 256),
        "head_dim": 64,
        "tie_word_embeddings": True,
        "pad_token_id": PAD,
        "eos_token_id": END,
        "bos_token_id": 2,
    }
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("gemma2" if gemma else "llama", **shape))
    return model.to(DEVICE)


def draw(case: Case, count: int) -> list[list[tuple[list[int], list[list[int]]]]]:
    """`count` batches of (prompt, responses that end in END)."""
    rng = random.Random(0)

    def some(n):
        return [rng.randrange(3, case.vocabulary) for _ in range(n)]

    def response():
        return some(rng.randint(*case.response) - 1) + [END]

    return [[(some(case.prompt), [response() for _ in range(case.m)]) for _ in range(case.lists)] for _ in range(count)]


def objective(logprob, reference):
    """The contrastive loss with the first candidate best; for two candidates it is DPO's."""
    grade = torch.zeros_like(reference)
    grade[:, 0] = 1.0
    return contrastive(BETA * (logprob - reference), grade, torch.ones_like(grade, dtype=torch.bool))


def flattened(model, batch):
    """[B, L] as the textbook does: a padded row per response, all logits, a log-softmax over them."""
    rows = [(prompt, response) for prompt, responses in batch for response in responses]
    size = max(len(p) + len(r) for p, r in rows)
    ids = torch.tensor([p + r + [PAD] * (size - len(p) - len(r)) for p, r in rows], device=DEVICE)
    real = torch.tensor([[1] * (len(p) + len(r)) + [0] * (size - len(p) - len(r)) for p, r in rows], device=DEVICE)
    answer = real.clone()
    for i, (prompt, _) in enumerate(rows):
        answer[i, : len(prompt)] = 0
    logits = model(input_ids=ids, attention_mask=real, use_cache=False).logits[:, :-1].float()
    chosen = logits.log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
    return (chosen * answer[:, 1:]).sum(-1).view(len(batch), -1)


def packed(model, batch):
    prompts, responses = zip(*batch)
    return response_logprobs(model, pack(list(prompts), list(responses), layout(model, ALWAYS), PAD).to(DEVICE))


def plain_step(case: Case, model, batches, references, logprobs):
    """Batch number → loss, with gradients left on the model."""
    prepare(case, model)

    def step(i):
        with torch.autocast(DEVICE, torch.bfloat16, enabled=case.bf16):
            logprob = logprobs(model, batches[i])
        loss = objective(logprob, references[i])
        loss.backward()
        return loss.item()

    return step


def prepare(case: Case, model) -> None:
    model.train()
    if case.checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})


def tokenizer():
    """The least tokenizer that a DPOTrainer takes; the batches are token ids already."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.WordLevel({"<pad>": PAD, "</s>": END, "w": 3}, unk_token="w"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="</s>")


def trl_step(case: Case, model, batches, references, reference_model):
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    trainer = DPOTrainer(
        model=model,
        ref_model=reference_model,
        args=DPOConfig(
            output_dir=str(Path(tempfile.gettempdir()) / "bench-training"),
            beta=BETA,
            max_length=None,
            bf16=case.bf16,
            use_cpu=DEVICE == "cpu",
            gradient_checkpointing=case.checkpointing,
            precompute_ref_log_probs=reference_model is None,
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_dict({"prompt": ["w w"], "chosen": [" w"], "rejected": [" w w"]}),
        processing_class=tokenizer(),
    )
    trainer.current_gradient_accumulation_steps = 1
    prepare(case, model)
    wrapped = trainer.accelerator.prepare_model(model)
    made = []
    for batch, reference in zip(batches, references):
        rows = []
        for (prompt, (chosen, rejected)), (first, second) in zip(batch, reference.tolist()):
            rows.append({"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected})
            if reference_model is None:
                rows[-1] |= {"ref_chosen_logps": first, "ref_rejected_logps": second}
        made.append(trainer.data_collator(rows))
    return lambda i: trainer.training_step(wrapped, dict(made[i])).item()


def contender(name: str, case: Case, model, batches, references, reference_model=None):
    """Batch number → loss of one whole step."""
    if name in (TRL, TRL_STORED):
        kept = reference_model if name == TRL else None
        gradients = trl_step(case, model, batches, references, kept)
    else:
        gradients = plain_step(case, model, batches, references, packed if name == OURS else flattened)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)  # what trainers use unless told
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()  # its moments exist from here on, as in the middle of training
    optimizer.zero_grad()

    def step(i):
        loss = gradients(i % len(batches))
        optimizer.step()
        optimizer.zero_grad()
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        return loss

    return step


def fits(name: str, case: Case) -> bool:
    """Whether the full logits of a flattened list, four times over, are well below the free memory."""
    if name != FLAT:
        return True
    free = (
        torch.cuda.mem_get_info()[0] if DEVICE == "cuda" else os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    )
    return 4 * 4 * case.lists * case.m * (case.prompt + case.response[1]) * case.vocabulary < 0.75 * free


def clock() -> float:
    return time.perf_counter() if DEVICE == "cuda" else time.process_time()


def times(case: Case, names, budget: float) -> dict[str, list[float]]:
    """Seconds of every contender's steps, taking turns; as many rounds as the budget allows, at least three."""
    batches = draw(case, 3)
    reference_model = build(case, 1).eval()
    with torch.no_grad():
        references = [packed(reference_model, batch) for batch in batches]
    model = build(case, 0)
    steps = {
        name: contender(name, case, copy.deepcopy(model), batches, references, copy.deepcopy(reference_model))
        for name in names
    }
    del model, reference_model
    losses, spent = {}, 0.0
    for name, step in steps.items():
        started = clock()
        losses[name] = step(0)
        spent += clock() - started
    first = losses[OURS]
    tolerance = 5e-2 if case.bf16 else 2e-3
    assert all(abs(x - first) < tolerance * max(1, abs(first)) for x in losses.values()), losses
    seconds = {name: [] for name in names}
    for i in range(max(3, min(9, int(budget / spent)))):
        for name, step in steps.items():
            started = clock()
            step(i + 1)
            seconds[name].append(clock() - started)
    return seconds


def resident(field: str) -> float:
    """MB of this process: VmRSS now, VmHWM at most since `forget_peak`."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(field))
    return int(line.split()[1]) / 1024


def forget_peak() -> None:
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def memory(name: str, case: Case) -> float:
    """Peak MB of a step of a contender, in this process, once AdamW's moments exist."""
    if name in (TRL, TRL_STORED):
        importlib.import_module("trl.trainer.dpo_trainer")  # what it loads is no part of a step
    before = resident("VmRSS")
    batches = draw(case, 1)
    references = [torch.full((case.lists, case.m), -500.0, device=DEVICE)]
    kept = build(case, 1).eval() if name == TRL else None
    step = contender(name, case, build(case, 0), batches, references, kept)
    if DEVICE == "cuda":
        torch.cuda.reset_peak_memory_stats()
        step(0)
        return torch.cuda.max_memory_allocated() / 2**20
    forget_peak()
    step(0)
    return resident("VmHWM") - before


def in_child(name: str, case: Case) -> float:
    command = [sys.executable, __file__, "--measure", name, str(CASES.index(case))]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def machine() -> str:
    import transformers

    what = torch.cuda.get_device_name() if DEVICE == "cuda" else f"one thread of a {os.cpu_count()}-core {_cpu()}"
    return f"{what}, torch {torch.__version__}, transformers {transformers.__version__}, TRL {_trl_version()}"


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")), platform.machine())


def _trl_version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("trl")
    except PackageNotFoundError:
        return "absent"


def run(case: Case, budget: float, on: str) -> list[dict]:
    """One row per contender of a case."""
    names = [n for n in case.contenders if fits(n, case) and (n not in (TRL, TRL_STORED) or _trl_version() != "absent")]
    seconds = times(case, names, budget)
    peaks = {name: in_child(name, case) for name in names}
    model = build(case, 0)
    head = model.get_output_embeddings().weight.numel()
    body = sum(p.numel() for p in model.parameters()) - head  # tied
    lists = [one for batch in draw(case, 3) for one in batch]
    answers = sum(len(r) for _, responses in lists for r in responses) / 3
    tokens = answers + case.prompt * case.lists  # each prompt once: what there is to learn from, the same for all
    best = next((v for k, v in PEAK.items() if DEVICE == "cuda" and k in torch.cuda.get_device_name()), None)
    rows = []
    for name in case.contenders:
        row = {
            "case": case.name,
            "lists": case.lists,
            "model": f"{model.config.model_type}, {model.num_parameters() / 1e6:.0f}M",
        }
        row |= {"contender": name}
        if name in names:
            median = statistics.median(seconds[name])
            row |= {
                "seconds": round(median, 3),
                "fastest": round(min(seconds[name]), 3),
                "slowest": round(max(seconds[name]), 3),
                "ours_is_faster_by": round(median / statistics.median(seconds[OURS]), 2),
                "peak_MB": round(peaks[name]),
                "ours_needs_of_its_memory": round(peaks[OURS] / peaks[name], 2),
                "tokens_per_s": round(tokens / median),
                "of_matrix_peak": round(6 * (body * tokens + head * answers) / median / best, 3) if best else None,
                "rounds": len(seconds[name]),
            }
        else:
            row |= {"note": "its logits do not fit in memory" if name == FLAT else "TRL is not installed"}
        rows.append(row | {"machine": on})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the first three cases only")
    parser.add_argument("--only", type=int, nargs="+", metavar="NUMBER", help="these cases, from 0; keep other rows")
    parser.add_argument("--budget", type=float, default=30.0, help="seconds of timed steps per case, roughly")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"))
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)  # contender, number of a case: its memory
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.measure:
        print(json.dumps(memory(given.measure[0], CASES[int(given.measure[1])])))
        return
    kept = pd.read_csv(given.out) if given.only and given.out.exists() else pd.DataFrame()
    for number in given.only or range(3 if given.quick else len(CASES)):
        rows = pd.DataFrame(run(CASES[number], given.budget, machine()))
        print(rows.drop(columns="machine").to_string(index=False), flush=True)
        if len(kept):
            kept = kept[kept["case"] != CASES[number].name]
        kept = pd.concat([kept, rows], ignore_index=True)
        kept.to_csv(given.out, index=False)


if __name__ == "__main__":
    main()
