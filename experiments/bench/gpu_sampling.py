"""Tokens per second drawn from a random model of 1B parameters: ours, plain `generate`, and vLLM where it is installed.

    python experiments/bench/gpu_sampling.py --out experiments/bench/gpu

Every draw runs to its last token, since nothing trained the end token, and draws of a prompt part at their first one, so
that no engine gains by what draws share but the prompt. bfloat16 on a GPU; the fastest of the rounds counts after one of
warm-up. Prompts and draws go in at once; `rows` is how many sequences our engine and `generate` hold at once.
"""

import importlib.util
import json
import tempfile
from pathlib import Path

import torch
from gpu_common import DEVICE, Table, forget, now, options, random_llama

from irlens import tasks
from irlens.models import catalog, load
from irlens.models.chat import Prompt, token_ids
from irlens.retrieve.engines import Sampling
from irlens.retrieve.engines.transformers import TransformersEngine
from irlens.retrieve.options import EngineOptions

COLUMNS = (
    "model", "engine", "prompts", "n", "rows", "prompt_tokens", "new_tokens", "seconds", "tokens_per_s",
    "ours_is_faster_by", "peak_gb", "note",
)  # fmt: skip
CASES = ((64, 1, 64), (256, 1, 256), (1024, 1, 1024), (64, 16, 1024), (8, 128, 1024))  # prompts, n, rows at once


@torch.inference_mode()
def generate(engine: TransformersEngine, asked: list[Prompt], n: int, tokens: int, rows: int) -> int:
    """The same by transformers alone."""
    ids, made = token_ids(engine.tokenizer, asked), 0
    at_once = max(1, rows // n)
    for start in range(0, len(ids), at_once):
        some = ids[start : start + at_once]
        width = max(map(len, some))
        padded = [[engine.pad] * (width - len(one)) + one for one in some]
        mask = [[0] * (width - len(one)) + [1] * len(one) for one in some]
        out = engine.model.generate(
            input_ids=torch.tensor(padded, device=DEVICE),
            attention_mask=torch.tensor(mask, device=DEVICE),
            do_sample=True,
            top_k=0,
            num_return_sequences=n,
            max_new_tokens=tokens,
            min_new_tokens=tokens,
            pad_token_id=engine.pad,
        )
        made += out.shape[0] * (out.shape[1] - width)
    return made


def fastest(draw, rounds: int) -> tuple[float, int]:
    """(seconds, tokens) of the fastest round after one of warm-up."""
    found = []
    for _ in range(rounds + 1):
        started = now()
        tokens = draw()
        found.append((now() - started, tokens))
    return min(found[1:])


def some_prompts(count: int, tokenizer, times: int) -> list[Prompt]:
    topics = tasks.load("sums", "test", count).topics
    return [Prompt(q, " ".join([text] * times)) for q, text in zip(topics["query_id"], topics["query"])]


def transformers_engines(table, model, tokenizer, cases, asked, tokens, size, end) -> dict:
    """A row for ours and for `generate` in each case; returns our seconds."""
    found = {}
    for count, n, rows in cases:
        engine = TransformersEngine(model, tokenizer, batch_size=rows)
        some, length = asked[:count], max(map(len, token_ids(tokenizer, asked[:count])))
        ways = {
            "ours": lambda: sum(d.n_tokens for d in engine.sample(some, range(n), Sampling(1.0, 0, tokens))),
            "generate": lambda: generate(engine, some, n, tokens, rows),
        }
        for name, draw in ways.items():
            if now() > end:
                return found
            told = {"model": size, "engine": name, "prompts": count, "n": n, "rows": rows}
            told |= {"prompt_tokens": length, "new_tokens": tokens}
            if DEVICE == "cuda":
                torch.cuda.reset_peak_memory_stats()
            try:
                seconds, made = fastest(draw, 1)
            except torch.OutOfMemoryError:
                forget()
                table.add(**told, note="out of memory")
                continue
            if name == "ours":
                found[count, n] = seconds
            first = found.get((count, n))
            memory = round(torch.cuda.max_memory_allocated() / 1e9, 2) if DEVICE == "cuda" else None
            table.add(
                **told,
                seconds=round(seconds, 3),
                tokens_per_s=round(made / seconds),
                ours_is_faster_by=first and round(seconds / first, 2),
                peak_gb=memory,
            )
            forget()
    return found


def vllm_engine(table, folder: Path, cases, asked, tokens, size, ours: dict, end) -> None:
    """A row for vLLM in each case, which decides itself how many sequences it holds."""
    from irlens.retrieve.engines import vllm

    more = {"max_model_len": 1024, "max_num_seqs": max(rows for _, _, rows in cases)}
    engine = vllm.load(EngineOptions(engine="vllm", engine_args=json.dumps(more)), folder)
    for count, n, rows in cases:
        if now() > end:
            break
        some, length = asked[:count], max(map(len, token_ids(engine.tokenizer, asked[:count])))
        draw = lambda: sum(d.n_tokens for d in engine.sample(some, range(n), Sampling(1.0, 0, tokens)))  # noqa: E731
        seconds, made = fastest(draw, 1)
        first = ours.get((count, n))
        table.add(
            model=size, engine="vllm", prompts=count, n=n, rows=rows, prompt_tokens=length, new_tokens=tokens,
            seconds=round(seconds, 3), tokens_per_s=round(made / seconds),
            ours_is_faster_by=first and round(seconds / first, 2),
        )  # fmt: skip
    engine.close()


def main() -> None:
    given = options(__doc__).parse_args()
    size, cases, tokens, times = ("dry", ((2, 1, 2), (2, 2, 4)), 4, 1) if given.dry else ("1B", CASES, 128, 6)
    table, end = Table(given.out, "sampling", COLUMNS), now() + given.seconds
    tokenizer = load.tokenizer(catalog.fetch(catalog.model("tiny")))
    asked = some_prompts(max(count for count, _, _ in cases), tokenizer, times)
    model = random_llama(size, torch.bfloat16 if DEVICE == "cuda" else torch.float32).eval()
    with tempfile.TemporaryDirectory() as folder:
        here = importlib.util.find_spec("vllm") is not None and not given.dry
        if here:
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
        ours = transformers_engines(table, model, tokenizer, cases, asked, tokens, size, end)
        del model
        forget()
        if here:
            vllm_engine(table, Path(folder), cases, asked, tokens, size, ours, end)
        elif not given.dry:
            print("skipped: vLLM, vllm is not installed", flush=True)


if __name__ == "__main__":
    main()
