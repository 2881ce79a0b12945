"""Seconds and memory of one list's log-probabilities and gradients: its responses in one row against a row for each.

    python experiments/bench/packing.py [--quick] [--out experiments/bench/packing.csv]

A packed row reads the prompt once, but its attention goes over all responses, masked; a row for each repeats the prompt
and is padded to the longest response. Which is faster depends on the prompt, the responses, their number and the model's width: a
token's linear layers cost width² each, its attention the row's length times the width. Both ways of a case take turns in
one process on the same list, after a pass in which their values must agree; the clock is the process's CPU seconds on one
thread, the table has medians and the smallest and largest round's ratio. Memory is the process's resident high-water mark
in a pass, less what was resident before it. The models are random, of one layer and few words, so that what differs shows.
"""

import argparse
import ctypes
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from irlens.models.logprobs import layout, pack, packed_tokens, response_logprobs

WAYS = {"packed": 10**9, "plain": 0}  # tokens of the longest packed row
VOCABULARY = 1000
SPREAD = {2: (0.6, 1.4), 4: (0.6, 0.8, 1.2, 1.4)}  # lengths of a list's responses, of their mean


@dataclass(frozen=True)
class Case:
    width: int
    m: int
    prompt: int
    response: int  # the mean

    @property
    def lengths(self) -> list[int]:
        return [int(self.response * part) for part in SPREAD[self.m]]

    @property
    def row(self) -> int:
        return packed_tokens(self.prompt, self.lengths)

    @property
    def rounds(self) -> int:
        return 5 if self.row * self.width < 500_000 else 3 if self.row * self.width < 2_000_000 else 1


def cases(quick: bool) -> list[Case]:
    if quick:
        return [Case(64, 4, 128, response) for response in (64, 256)]
    found = [Case(256, 4, p, r) for p in (128, 512) for r in (64, 256, 512, 1024)]
    found += [Case(1024, 4, 128, 64), Case(64, 4, 512, 8000), Case(256, 4, 2048, 256)]
    found += [Case(256, 2, p, r) for p, r in ((128, 256), (512, 256), (512, 1024))]
    return [*found, Case(1024, 4, 128, 256), Case(1024, 4, 512, 256), Case(256, 4, 512, 4096), Case(1024, 4, 128, 1024)]


def small(width: int):
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "llama",
        vocab_size=VOCABULARY,
        hidden_size=width,
        num_hidden_layers=1,
        num_attention_heads=width // 64,
        num_key_value_heads=width // 64,
        intermediate_size=3 * width,
        max_position_embeddings=16_384,  # more than the longest
    )
    return AutoModelForCausalLM.from_config(config)


def status(name: str) -> int:
    """Bytes that /proc tells of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(name + ":")).split()[1])


def one_pass(model, case: Case, way: str) -> tuple[torch.Tensor, float, int]:
    """The values, CPU seconds and bytes of packing, a forward and a backward pass."""
    generator = torch.Generator().manual_seed(1)
    prompt, *responses = (
        torch.randint(VOCABULARY, (n,), generator=generator).tolist() for n in (case.prompt, *case.lengths)
    )
    model.zero_grad()
    Path("/proc/self/clear_refs").write_text("5")  # forgets the high-water mark
    before, start = status("VmRSS"), time.process_time()
    values = response_logprobs(model, pack([prompt], [responses], layout(model, WAYS[way])))
    values.sum().backward()
    return values.detach(), time.process_time() - start, status("VmHWM") - before


def measured(model, case: Case) -> dict:
    """One row of the table."""
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    memory: dict[str, list[int]] = {way: [] for way in WAYS}
    if case.rounds > 1:  # a pass of warm-up, and of agreement
        torch.testing.assert_close(*(one_pass(model, case, way)[0] for way in WAYS), atol=1e-2, rtol=1e-4)
    for number in range(case.rounds):
        for way in list(WAYS)[:: 1 if number % 2 else -1]:
            _, spent, held = one_pass(model, case, way)
            seconds[way].append(spent)
            memory[way].append(held)
    times = {way: statistics.median(some) for way, some in seconds.items()}
    held = {way: statistics.median(some) / 2**20 for way, some in memory.items()}
    estimate = layout(model).objection(case.prompt, case.lengths)
    ratios = [plain / packed for packed, plain in zip(seconds["packed"], seconds["plain"])]
    return {
        "width": case.width,
        "responses": case.m,
        "prompt_tokens": case.prompt,
        "response_tokens": case.response,
        "row_tokens": case.row,
        "rounds": case.rounds,
        "packed_seconds": round(times["packed"], 4),
        "plain_seconds": round(times["plain"], 4),
        "estimate": "plain" if estimate else "packed",
        "packed_faster": round(times["plain"] / times["packed"], 3),
        "least": round(min(ratios), 3),
        "most": round(max(ratios), 3),
        "packed_mib": round(held["packed"], 1),
        "plain_mib": round(held["plain"], 1),
        "packed_share_of_memory": round(held["packed"] / held["plain"], 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two small cases, to see that it runs")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    ctypes.CDLL(None).mallopt(-3, 2**16)  # M_MMAP_THRESHOLD: what is freed goes back to the system
    rows, models = pd.read_csv(given.out).to_dict("records") if given.out.exists() else [], {}
    known = [(row["width"], row["responses"], row["prompt_tokens"], row["response_tokens"]) for row in rows]
    for case in cases(given.quick):
        if (case.width, case.m, case.prompt, case.response) in known:
            continue  # from a table that is there
        if case.width not in models:
            models[case.width] = small(case.width)
        rows.append(measured(models[case.width], case))
        print(rows[-1], flush=True)
        pd.DataFrame(rows).to_csv(given.out, index=False)


if __name__ == "__main__":
    main()
