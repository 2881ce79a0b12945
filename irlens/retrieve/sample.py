"""An LLM's draws as a run: templated prompts, shards that survive a kill, one table at the end."""

import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import numpy as np
import pandas as pd

from irlens.catalog import PLAIN_PROMPT
from irlens.errors import UserError
from irlens.retrieve.engines import Engine, Prompt, Sampling
from irlens.retrieve.meter import Meter
from irlens.tables import ranked, write_parquet

DRAWS = 50  # draws of a prompt in one shard; a constant, so that a longer run continues the shards of a shorter one
SHARD = re.compile(r"T(?P<t>.+)-q(?P<q0>\d+)-(?P<q1>\d+)-d(?P<d0>\d+)-(?P<d1>\d+)\.parquet")


def prompts(topics: pd.DataFrame, tokenizer, instruction: str = "") -> list[Prompt]:
    """The text that the model reads for each topic: the tokenizer's chat template, else `PLAIN_PROMPT`.

    `instruction` follows the question in a chat; a model without a template is not told it. A topic's own `messages`
    are used as they are.
    """
    templated = getattr(tokenizer, "chat_template", None)
    given = topics["messages"] if "messages" in topics.columns else [None] * len(topics)
    out = []
    for query_id, query, messages in zip(topics["query_id"], topics["query"], given):
        if messages is None:
            messages = [{"role": "user", "content": f"{query}\n\n{instruction}".rstrip()}]
        messages = tuple(messages)
        text = PLAIN_PROMPT.format(query=query)
        if templated:
            text = tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
        out.append(Prompt(query_id, text, messages))
    return out


def template(tokenizer) -> str:
    """What the manifest records as the prompt template."""
    return getattr(tokenizer, "chat_template", None) or PLAIN_PROMPT


def short(temperature: float) -> str:
    """A temperature in as few digits as tell it exactly: 1, 0.7."""
    return f"{temperature:g}" if float(f"{temperature:g}") == temperature else repr(float(temperature))


def doc_id(query_id: str, temperature: float, draw: int) -> str:
    """The identifier of a draw, unique over temperatures."""
    return f"{query_id}/T{short(temperature)}/{draw:05d}"


def sample_run(
    load_engine: Callable[[], Engine],
    asked: Sequence[Prompt],
    n: int,
    temperatures: Sequence[float],
    seed: int,
    max_tokens: int,
    folder: Path,
    name: str,
    say: Callable[[str], None] = print,
) -> pd.DataFrame:
    """n draws of every prompt at every temperature, as a run with one `tag` per temperature.

    Draw d of a prompt has score −d: the order of drawing is the ranking, and the first N rows are the first N draws.
    Shards go to `folder`, each by rename; those already there are kept, and the engine is not even loaded if none is
    missing. Raises UserError for a shard that cannot be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    missing = _missing(folder, len(asked), n, temperatures, Engine.shard_rows)
    total = len(asked) * n * len(temperatures)
    todo = sum((q1 - q0) * (d1 - d0) for _, q0, q1, d0, d1 in missing)
    if todo < total:
        say(f"reused {total - todo:,} of {total:,} draws from {folder}")
    if missing:
        with Meter(name, todo, folder, say) as meter:
            engine = load_engine()
            missing = _missing(folder, len(asked), n, temperatures, engine.shard_rows)
            try:
                _sample_shards(engine, asked, missing, seed, max_tokens, folder, meter)
            finally:
                engine.close()
    shards = sorted(folder.glob("T*.parquet"))
    try:
        run = pd.concat([pd.read_parquet(path) for path in shards], ignore_index=True)
    except (OSError, ValueError) as error:
        raise UserError(f"{folder}: a shard cannot be read ({error}); delete it and run again") from error
    run["query_id"] = run["query_id"].astype(object)
    run = run.drop_duplicates(["query_id", "temperature", "draw"])  # shards overlap where one between others was lost
    kept = run["temperature"].isin([float(t) for t in temperatures]) & (run["draw"] < n)
    return _as_run(run[kept], asked, temperatures, name)


def _missing(
    folder: Path, queries: int, n: int, temperatures: Sequence[float], rows: int
) -> list[tuple[float, int, int, int, int]]:
    """The blocks (temperature, query range, draw range) of about `rows` draws that no shard in `folder` holds."""
    done = {float(t): np.zeros((queries, n), dtype=bool) for t in temperatures}
    for path in folder.glob("T*.parquet"):
        if (m := SHARD.fullmatch(path.name)) and float(m["t"]) in done:
            done[float(m["t"])][int(m["q0"]) : int(m["q1"]), int(m["d0"]) : int(m["d1"])] = True
    block = max(1, rows // min(n, DRAWS))
    out = []
    for temperature, held in done.items():
        for q0 in range(0, queries, block):
            q1 = min(q0 + block, queries)
            for d0 in range(0, n, DRAWS):
                d1 = min(d0 + DRAWS, n)
                row = q0
                while row < q1:  # neighbours that miss the same draws make one block
                    open_draws = np.flatnonzero(~held[row, d0:d1])
                    stop = row + 1
                    while stop < q1 and np.array_equal(held[stop, d0:d1], held[row, d0:d1]):
                        stop += 1
                    if len(open_draws):
                        out.append((temperature, row, stop, d0 + int(open_draws[0]), d0 + int(open_draws[-1]) + 1))
                    row = stop
    return out


def _sample_shards(engine: Engine, asked, missing, seed: int, max_tokens: int, folder: Path, meter: Meter) -> None:
    """Draws the missing blocks and writes each as a shard; as many at once as the engine takes."""

    def one(block: tuple[float, int, int, int, int]) -> None:
        temperature, q0, q1, d0, d1 = block
        drawn = engine.sample(asked[q0:q1], range(d0, d1), Sampling(temperature, seed, max_tokens), meter.add)
        shard = pd.DataFrame([vars(d) for d in drawn]).assign(temperature=temperature)
        write_parquet(shard, folder / f"T{short(temperature)}-q{q0:06d}-{q1:06d}-d{d0:06d}-{d1:06d}.parquet")
        meter.kept(len(shard), int(shard["n_tokens"].sum()), engine.gpus)

    if engine.at_once == 1:
        for block in missing:
            one(block)
        return
    with ThreadPoolExecutor(engine.at_once, thread_name_prefix="shard") as pool:
        futures = [pool.submit(one, block) for block in missing]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            engine.close()  # ends the calls in flight, which the pool waits for
            raise


def _as_run(drawn: pd.DataFrame, asked: Sequence[Prompt], temperatures: Sequence[float], name: str) -> pd.DataFrame:
    labels = {float(t): f"{name} T={short(t)}" for t in temperatures}
    run = drawn.assign(
        doc_id=[doc_id(q, t, d) for q, t, d in zip(drawn["query_id"], drawn["temperature"], drawn["draw"])],
        score=-drawn["draw"].astype(np.float32),
        tag=drawn["temperature"].map(labels),
    )
    order = {prompt.query_id: i for i, prompt in enumerate(asked)}
    run = ranked(run).assign(order=lambda f: f["query_id"].map(order))
    run = run.sort_values(["temperature", "order", "draw"], kind="stable", ignore_index=True)
    columns = [
        "query_id",
        "doc_id",
        "score",
        "rank",
        "text",
        "tag",
        "temperature",
        "draw",
        "logprob",
        "n_tokens",
        "finish_reason",
    ]
    return run[columns]
