"""Seconds and memory of a list with long responses, 500 + 4 × 8,000 tokens: as `layout` has it, against rows one by one.

    python experiments/bench/long_lists.py [--lengths 8000 8000 8000 8000] [--rounds 2] [--out …/long_lists.csv]

The ways take turns in one process on the same list and must agree in value; the clock is the process's CPU seconds on one
thread, memory its resident high-water mark over what it held before (`packing.py`); rows are added to a table that is there. "Under a padding mask" is how rows of
unequal length went before: a mask of rows × tokens × tokens, which causal attention over rows padded at the right needs not.
"""

import argparse
import ctypes
import statistics
import time
from pathlib import Path

import pandas as pd
import torch
from packing import VOCABULARY, small, status

from irlens.models.logprobs import layout, pack, response_logprobs

PROMPT = 500
WAYS = ("as chosen", "rows one by one", "rows under a padding mask", "one packed row, dense mask")


def values(model, way: str, prompt: list[int], responses: list[list[int]]) -> torch.Tensor:
    """Forward and backward; the log-probabilities [responses]."""
    if way == "rows one by one":
        return torch.cat([values(model, "as chosen", prompt, [response]) for response in responses])
    rows = pack([prompt], [responses], layout(model, 10**9 if "packed" in way else None))
    if "padding" in way:
        logits = model(rows.input_ids, attention_mask=rows.branch >= 0, position_ids=rows.position_ids).logits
        logits = logits.flatten(0, 1)[rows.source]
        tokens = logits.gather(-1, rows.target[:, None])[:, 0] - logits.logsumexp(-1)
        found = tokens.new_zeros(len(responses)).index_add(0, rows.owner, tokens)
    else:
        found = response_logprobs(model, rows)[0]
    found.sum().backward()
    return found.detach()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--lengths", type=int, nargs="+", default=[7000, 7500, 8500, 9000])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    ctypes.CDLL(None).mallopt(-3, 2**16)  # M_MMAP_THRESHOLD: what is freed goes back to the system
    model, generator = small(given.width), torch.Generator().manual_seed(1)
    prompt, *responses = (
        torch.randint(VOCABULARY, (n,), generator=generator).tolist() for n in (PROMPT, *given.lengths)
    )
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    memory: dict[str, list[float]] = {way: [] for way in WAYS}
    first = None
    for _ in range(given.rounds):
        for way in WAYS:
            model.zero_grad()
            Path("/proc/self/clear_refs").write_text("5")  # forgets the high-water mark
            before, start = status("VmRSS"), time.process_time()
            found = values(model, way, prompt, responses)
            seconds[way].append(time.process_time() - start)
            memory[way].append((status("VmHWM") - before) / 2**20)
            first = found if first is None else first
            torch.testing.assert_close(found, first, atol=0.1, rtol=1e-5)
            print(way, f"{seconds[way][-1]:.1f} s, {memory[way][-1]:,.0f} MiB", flush=True)
    base = statistics.median(seconds["rows one by one"])
    rows = pd.read_csv(given.out).to_dict("records") if given.out.exists() else []
    rows += [
        {
            "way": way,
            "width": given.width,
            "tokens": f"{PROMPT} + {' + '.join(map(str, given.lengths))}",
            "cpu_seconds": round(statistics.median(seconds[way]), 1),
            "times_rows_one_by_one": round(statistics.median(seconds[way]) / base, 2),
            "peak_mib": round(statistics.median(memory[way])),
            "rounds": given.rounds,
        }
        for way in WAYS
    ]
    pd.DataFrame(rows).to_csv(given.out, index=False)


if __name__ == "__main__":
    main()
