"""Draws per second of irlens's transformers engine against plain `generate`, interleaved in one run, medians.

    python experiments/bench/sampling.py [--rounds 5] [--out experiments/bench/sampling.csv]

Three ways to the same work, at 16 draws of few prompts and at one draw of many: ours, `generate` prompt by prompt with num_return_sequences = n, and
`generate` over batches of prompts. All in float32 on one thread (small models lose by more), with the same prompts,
temperature and limit, and from text to text.
"""

import argparse
import platform
import statistics
import time
from pathlib import Path

import pandas as pd
import torch

from irlens import tasks
from irlens.models import catalog
from irlens.models.chat import prompts
from irlens.retrieve.engines import Sampling
from irlens.retrieve.engines.transformers import TransformersEngine


def ours(engine, asked, n, temperature, tokens, batch):
    drawn = engine.sample(asked, range(n), Sampling(temperature, 0, tokens))
    return len(drawn), sum(draw.n_tokens for draw in drawn)


@torch.inference_mode()
def generate(engine, asked, n, temperature, tokens, batch):
    """Plain `generate`, `batch` prompts at a time; text decoded, as every user does."""
    tokenizer = engine.tokenizer
    tokenizer.padding_side = "left"
    draws = made = 0
    for i in range(0, len(asked), batch):
        inputs = tokenizer([p.text for p in asked[i : i + batch]], return_tensors="pt", padding=True)
        out = engine.model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            do_sample=True,
            temperature=temperature,
            top_k=0,
            num_return_sequences=n,
            max_new_tokens=tokens,
            pad_token_id=engine.pad,
        )[:, inputs["input_ids"].shape[1] :]
        draws += len(tokenizer.batch_decode(out, skip_special_tokens=True))
        made += int((out != engine.pad).sum())
    return draws, made


OURS, ALONE = ("ours", ours, 0), ("generate, prompt by prompt", generate, 1)
CASES = (  # name, prompts, draws, temperature, the ways and their batches
    ("n = 16", 64, 16, 1.0, (OURS, ALONE, ("generate, 16 prompts at once", generate, 16))),
    ("n = 16", 64, 16, 0.5, (OURS, ALONE, ("generate, 16 prompts at once", generate, 16))),
    ("n = 1", 500, 1, 1.0, (OURS, *((f"generate, {b} prompts at once", generate, b) for b in (64, 250, 500)))),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    engine = TransformersEngine.load(catalog.fetch(catalog.model("tiny")))
    asked = prompts(tasks.load("sums", "test", 1000).topics, engine.tokenizer)
    rows = []
    for case, count, n, temperature, ways in CASES:
        seconds = {way: [] for way, _, _ in ways}
        for round_ in range(-1, given.rounds):  # the first warms up
            for way, function, batch in ways:
                started = time.perf_counter()
                draws, tokens = function(engine, asked[:count], n, temperature, 96, batch)
                if round_ >= 0:
                    seconds[way].append((time.perf_counter() - started, draws, tokens))
        base = statistics.median(s for s, _, _ in seconds["ours"])
        for way, measured in seconds.items():
            median = statistics.median(s for s, _, _ in measured)
            rows.append(
                {
                    "case": case,
                    "way": way,
                    "prompts": count,
                    "n": n,
                    "temperature": temperature,
                    "draws_per_s": round(measured[0][1] / median, 1),
                    "tokens_per_s": round(measured[0][2] / median),
                    "ours_is_faster_by": round(median / base, 2),
                    "rounds": given.rounds,
                    "machine": f"{torch.get_num_threads()} thread of a 2-core CPU, {platform.machine()}, torch {torch.__version__}",
                }
            )
            print(rows[-1], flush=True)
    pd.DataFrame(rows).to_csv(given.out, index=False)


if __name__ == "__main__":
    main()
