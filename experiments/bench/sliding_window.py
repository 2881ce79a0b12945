"""Milliseconds a token of sampling from models with sliding windows, against one of the same size without, interleaved.

    python experiments/bench/sliding_window.py [--tokens 1024] [--rounds 3] [--ours] [--out experiments/bench/sliding_window.csv]

The draws of one prompt, all of `--tokens` tokens, as rows of one batch through the transformers engine: with its own cache
(`retrieve/engines/prefix_cache.py`) and, for the models with windows, with transformers' `DynamicCache`, which copies what
it holds at every token. The models are random and equal but for their layers' windows; the ways take turns, the table has
medians of CPU seconds on one thread and of the ratio to the full model of the same round. It is written after each round.
"""

import argparse
import platform
import statistics
import time
from pathlib import Path

import pandas as pd
import torch
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache

from irlens.retrieve.engines import Prompt, Sampling, transformers
from irlens.retrieve.engines.prefix_cache import new_cache, rearrange

SIZE = {
    "vocab_size": 1000,
    "hidden_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 32,
    "intermediate_size": 768,
    "max_position_embeddings": 8192,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": None,
}
MODELS = {  # name: architecture and what differs; the first of an architecture is what the others are compared with
    "mistral, no window": ("mistral", {"sliding_window": None}),
    "mistral, window of 256": ("mistral", {"sliding_window": 256}),
    "mistral, window of 4,096": ("mistral", {"sliding_window": 4096}),
    "gemma2, no window": ("gemma2", {"layer_types": ["full_attention"] * 4}),
    "gemma2, every other layer 256": ("gemma2", {"sliding_window": 256}),
}
PROMPT = 128  # tokens


class Words:
    """A tokenizer of one prompt."""

    bos_token, pad_token_id, eos_token_id = None, 0, None

    def __call__(self, text, add_special_tokens=False):
        ids = [2 + i for i in range(PROMPT)]
        return {"input_ids": ids if isinstance(text, str) else [ids for _ in text]}

    def batch_decode(self, rows, **_):
        return [""] * len(rows)


def model(name: str):
    architecture, own = MODELS[name]
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(architecture, **(SIZE | own)))


def select(cache, parents) -> None:
    cache.batch_select_indices(parents)


CACHES = {"ours": (new_cache, rearrange), "transformers": (lambda config: DynamicCache(config=config), select)}


def one_run(engine, cache: str, rows: int, tokens: int):
    """(CPU seconds, token ids of all draws)."""
    transformers.new_cache, transformers.rearrange = CACHES[cache]
    started = time.process_time()
    drawn = engine.sample([Prompt("q", "the prompt")], range(rows), Sampling(1.0, 0, tokens))
    return time.process_time() - started, [draw.tokens for draw in drawn]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--ours", action="store_true", help="leave transformers' cache out: at 1,024 tokens it takes long"
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    engines = {name: transformers.TransformersEngine(model(name), Words(), batch_size=given.rows) for name in MODELS}
    for engine in engines.values():
        engine.ends = torch.tensor([-1])  # no draw ends early
    others = [] if given.ours else [(name, "transformers") for name in MODELS if "no window" not in name]
    ways = [*((name, "ours") for name in MODELS), *others]
    seconds: dict[tuple, list[float]] = {way: [] for way in ways}
    for number in range(given.rounds):
        drawn = {}
        for way in ways[:: -1 if number % 2 else 1]:
            spent, drawn[way] = one_run(engines[way[0]], way[1], given.rows, given.tokens)
            seconds[way].append(spent)
            print(number, way, f"{1000 * spent / given.tokens:.1f} ms a token", flush=True)
        for name in MODELS:
            assert len({str(found) for (other, _), found in drawn.items() if other == name}) == 1, "other draws"
        write(seconds, given, number + 1)


def write(seconds: dict[tuple, list[float]], given, rounds: int) -> None:
    """The table of what was measured so far."""
    rows = []
    for (name, cache), spent in seconds.items():
        base = seconds[next(other for other in MODELS if other.split(",")[0] == name.split(",")[0]), "ours"]
        rows.append(
            {
                "model": name,
                "cache": cache,
                "rows": given.rows,
                "tokens": given.tokens,
                "ms_per_token": round(1000 * statistics.median(spent) / given.tokens, 2),
                "times_the_full_model": round(statistics.median(a / b for a, b in zip(spent, base)), 2),
                "rounds": rounds,
                "machine": f"1 thread of a 2-core CPU under other load, {platform.machine()}, torch {torch.__version__}",
            }
        )
    pd.DataFrame(rows).to_csv(given.out, index=False)


if __name__ == "__main__":
    main()
