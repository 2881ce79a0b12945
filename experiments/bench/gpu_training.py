"""A training step at 1B and 3B parameters: ours, a row per response, and TRL's DPOTrainer; tokens/s and share of the peak.

    python experiments/bench/gpu_training.py --out experiments/bench/gpu

A step is the loss of four lists, its gradients and AdamW, in bfloat16 by autocast over float32 weights, with gradient
checkpointing. Weights are random, of Llama 3.2's shapes; which sizes are tried depends on the free memory. The share of
the peak counts what a list needs, each prompt once: 6 FLOP a weight and token (weights of the head at response tokens),
and 12 a layer, number of its width and pair of tokens that attend; `done_of_peak` counts prompts as often as they are read.
Repeated work in checkpointing and padding count as nothing. `difference`: the largest between the log-probabilities of a
way and of ours, in nats per token.
"""

import importlib.util
import random
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from gpu_common import DEVICE, Table, forget, free_memory, measured_peak, now, options, peak, random_llama

sys.path.insert(0, str(Path(__file__).parent))
from training import END, FLAT, OURS, TRL, flattened, objective, trl_step

from irlens.models.logprobs import layout, pack, response_logprobs

NEEDS = {"1B": 45e9, "3B": 100e9, "300M": 12e9, "dry": 0}  # bytes free: 16 a parameter, and activations
COLUMNS = (
    "model", "parameters", "candidates", "prompt_tokens", "response_tokens", "lists", "contender", "rows", "seconds",
    "fastest", "slowest", "steps", "tokens_per_s", "of_peak", "done_of_peak", "of_measured_peak", "data_sheet_tflops",
    "measured_tflops", "peak_gb", "ours_is_faster_by", "difference", "note",
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    m: int
    prompt: int
    response: tuple[int, int] = (192, 320)
    lists: int = 4
    checkpointing: bool = True
    bf16: bool = True

    def batch(self, vocabulary: int) -> list[tuple[list[int], list[list[int]]]]:
        """The lists: (prompt, responses that end in END)."""
        rng = random.Random(0)

        def some(n):
            return [rng.randrange(3, vocabulary) for _ in range(n)]

        lengths = [[rng.randint(*self.response) for _ in range(self.m)] for _ in range(self.lists)]
        return [(some(self.prompt), [some(n - 1) + [END] for n in each]) for each in lengths]


def cases(dry: bool) -> list[Case]:
    if dry:
        return [Case(2, 16, (4, 8), 2), Case(4, 16, (4, 8), 2)]
    return [Case(m, prompt) for prompt in (512, 2048, 128) for m in (2, 4, 8)]


def flops(model, batch, repeated: bool) -> float:
    """Of a step over the lists, each prompt once, or with every response (`repeated`)."""
    config, head = model.config, model.get_output_embeddings().weight.numel()
    body = sum(p.numel() for p in model.parameters()) - head  # tied: counted once
    width, total = config.num_attention_heads * config.head_dim, 0.0
    for prompt, responses in batch:
        p, own = len(prompt), [len(r) for r in responses]
        times = len(own) if repeated else 1
        pairs = times * p * p / 2 + sum(n * p + n * n / 2 for n in own)
        total += 6 * body * (times * p + sum(own)) + 6 * head * sum(own) + 12 * config.num_hidden_layers * width * pairs
    return total


def ours(model, batch):
    prompts, responses = map(list, zip(*batch))
    return response_logprobs(model, pack(prompts, responses, layout(model), 0).to(DEVICE))


def timed(step, rounds: int) -> list[float]:
    step()
    if DEVICE == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(rounds):
        started = now()
        step()
        seconds.append(now() - started)
    return seconds


def plain_step(way, model, optimizer, batch, reference):
    """A whole step as irlens's trainer takes it."""

    def step():
        with torch.autocast(DEVICE, torch.bfloat16):
            logprob = way(model, batch)
        objective(logprob.float(), reference).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


class Bench:
    """The measurements of one run: stops beginning new ones when its time is over."""

    def __init__(self, table: Table, seconds: float, dry: bool):
        self.table, self.dry, self.end = table, dry, now() + seconds
        self.rounds, self.best, self.sheet = (2 if dry else 5), measured_peak(256 if dry else 8192), peak()
        self.seconds_of_ours: dict = {}

    def over(self, said: list) -> bool:
        """Whether no time is left, said once."""
        if now() < self.end:
            return False
        if not said:
            said.append(print("no time left: the other cases are left out", flush=True))
        return True

    def row(self, size: str, model, case: Case, contender: str, rows: str, step, difference=None) -> None:
        """Measures a step and writes its row; what does not fit into memory is a row with a note."""
        told = {"model": size, "parameters": model.num_parameters(), "candidates": case.m, "lists": case.lists}
        told |= {"prompt_tokens": case.prompt, "response_tokens": f"{case.response[0]}-{case.response[1]}"}
        told |= {"contender": contender, "rows": rows}
        try:
            seconds = timed(step, self.rounds)
        except torch.OutOfMemoryError:
            model.zero_grad()
            forget()
            self.table.add(**told, note=f"does not fit into {free_memory() / 1e9:.0f} GB beside the model")
            return
        median, batch = statistics.median(seconds), case.batch(model.config.vocab_size)
        needed, done = flops(model, batch, False) / median, flops(model, batch, rows != "shared") / median
        tokens = sum(len(p) + sum(map(len, some)) for p, some in batch)
        if contender == OURS:
            self.seconds_of_ours[size, case] = median
        first = self.seconds_of_ours.get((size, case))
        self.table.add(
            **told,
            seconds=round(median, 4),
            fastest=round(min(seconds), 4),
            slowest=round(max(seconds), 4),
            steps=len(seconds),
            tokens_per_s=round(tokens / median),
            of_peak=self.sheet and round(needed / self.sheet, 4),
            done_of_peak=self.sheet and round(done / self.sheet, 4),
            of_measured_peak=round(needed / self.best, 4),
            data_sheet_tflops=self.sheet and self.sheet / 1e12,
            measured_tflops=round(self.best / 1e12, 2),
            peak_gb=round(torch.cuda.max_memory_allocated() / 1e9, 2) if DEVICE == "cuda" else None,
            ours_is_faster_by=first and round(median / first, 2),
            difference=None if difference is None else round(difference, 5),
        )

    def plain(self, size: str) -> None:
        """Ours and a row per response, over every case, with one model."""
        model, said = random_llama(size), []
        model.train()
        model.gradient_checkpointing_enable({"use_reentrant": False})
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)
        for case in cases(self.dry):
            if self.over(said):
                break
            batch = case.batch(model.config.vocab_size)
            with torch.no_grad(), torch.autocast(DEVICE, torch.bfloat16):
                reference = ours(model, batch).float()
            shared = not any(layout(model).objection(len(p), [len(r) for r in some]) for p, some in batch)
            step = plain_step(ours, model, optimizer, batch, reference)
            self.row(size, model, case, OURS, "shared" if shared else "a row each", step)
            step = plain_step(flattened, model, optimizer, batch, reference)
            difference = self.difference(model, batch)
            self.row(size, model, case, FLAT, "a row each", step, difference)
            forget()

    def difference(self, model, batch) -> float | None:
        """Between the flattened list and ours, in nats per token; None where the first does not fit."""
        try:
            with torch.no_grad(), torch.autocast(DEVICE, torch.bfloat16):
                length = torch.tensor([[len(r) for r in some] for _, some in batch], device=DEVICE)
                return ((flattened(model, batch) - ours(model, batch)).abs() / length).max().item()
        except torch.OutOfMemoryError:
            forget()
            return None

    def trl(self, size: str) -> None:
        """TRL's DPOTrainer as it comes, which has pairs only and computes its reference in every step."""
        said, model, reference = [], random_llama(size), random_llama(size).eval()
        for case in (case for case in cases(self.dry) if case.m == 2):
            if self.over(said):
                break
            batch = case.batch(model.config.vocab_size)
            gradients = trl_step(case, model, [batch], [torch.zeros(case.lists, 2)], reference)
            optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)

            def step(gradients=gradients, optimizer=optimizer):
                gradients(0)
                optimizer.step()
                optimizer.zero_grad()

            self.row(size, model, case, TRL, "a row each", step)
            del gradients, optimizer, step
            forget()


def main() -> None:
    parser = options(__doc__)
    given = parser.parse_args()
    table = Table(given.out, "training", COLUMNS)
    bench = Bench(table, given.seconds, given.dry)
    free = free_memory()
    sizes = ["dry"] if given.dry else [size for size in ("1B", "3B") if NEEDS[size] < free] or ["300M"]
    trl = importlib.util.find_spec("trl") is not None
    if not trl:
        print("skipped: TRL, trl is not installed", flush=True)
    for size in sizes:
        bench.plain(size)
        forget()
        if trl:
            bench.trl(size)
            forget()


if __name__ == "__main__":
    main()
