"""An LLM's draws as a run: shards that survive a kill, one table at the end."""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from irlens.base import store as stores
from irlens.base.errors import UserError
from irlens.base.files import write_parquet
from irlens.base.progress import Say
from irlens.models import chat
from irlens.retrieve.engines import Engine, Prompt, Sampling
from irlens.retrieve.meter import Meter
from irlens.retrieve.stored import Stored
from irlens.tables import ranked

DRAWS = 50  # draws of a prompt in one shard, at most; a constant, so that a longer run continues the shards of a shorter one
PARTS = 32  # shards that all draws are divided into, so that several devices have work, but for the fewest of one
COLUMNS = [
    "query_id", "doc_id", "score", "rank", "text", "tag", "temperature", "draw", "logprob", "n_tokens", "finish_reason", "tokens"
]  # fmt: skip
SHARD = re.compile(r"T(?P<t>.+)-q(?P<q0>\d+)-(?P<q1>\d+)-d(?P<d0>\d+)-(?P<d1>\d+)-(?P<key>[0-9a-f]{16})\.parquet")


def short(temperature: float) -> str:
    """A temperature in as few digits as tell it exactly: 1, 0.7."""
    temperature = float(temperature) + 0.0  # so that −0 is 0
    return f"{temperature:g}" if float(f"{temperature:g}") == temperature else repr(temperature)


def doc_id(query_id: str, temperature: float, draw: int) -> str:
    """The identifier of a draw, unique over temperatures."""
    return f"{query_id}/T{short(temperature)}/{draw:05d}"


@dataclass(frozen=True)
class Block:
    """Draws of one temperature, queries q0 to q1 and draws d0 to d1: what a shard holds."""

    temperature: float
    q0: int
    q1: int
    d0: int
    d1: int


@dataclass(frozen=True)
class Draws:
    """What names the draws of a prompt: how many at each of the temperatures, the seed, and their longest response.

    source: what draws them, in words that name weights and engine; made_with: the rest that a store names them by (None:
    it does not keep them); called: the model's name. `Policy.draw` fills in what is its own.
    """

    n: int
    temperatures: Sequence[float]
    seed: int
    max_tokens: int | None = None
    source: str = ""
    made_with: str | None = None
    called: str = ""

    @property
    def per_prompt(self) -> int:
        return self.n * len(self.temperatures)


@dataclass(frozen=True)
class Asked:
    """Everything that the draws of a call are a function of."""

    prompts: Sequence[Prompt]
    draws: Draws

    def path(self, folder: Path, block: Block) -> Path:
        """The shard of a block, named by all that its draws depend on: its prompts' texts, not their numbers alone."""
        some = [asdict(prompt) for prompt in self.prompts[block.q0 : block.q1]]
        how = self.draws
        told = [how.source, how.seed, how.max_tokens, short(block.temperature), block.d0, block.d1, some]
        key = hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()[:16]
        place = f"q{block.q0:06d}-{block.q1:06d}-d{block.d0:06d}-{block.d1:06d}"
        return folder / f"T{short(block.temperature)}-{place}-{key}.parquet"

    def held(self, folder: Path) -> tuple[dict[Path, Block], int]:
        """The shards of these draws in `folder`, and how many others lie there: of other draws, or without a key."""
        own, count = {}, 0
        for path in sorted(folder.glob("T*.parquet")):
            count += 1
            if found := SHARD.fullmatch(path.name):
                block = Block(float(found["t"]), *(int(found[name]) for name in ("q0", "q1", "d0", "d1")))
                if self.path(folder, block) == path:
                    own[path] = block
        return own, count - len(own)


def sample_run(
    load_engine: Callable[[], Engine],
    asked: Sequence[Prompt],
    draws: Draws,
    folder: Path | None,
    name: str,
    say: Say = print,
) -> pd.DataFrame:
    """The draws of every prompt, as a run with one `tag` per temperature.

    Draw d of a prompt has score −d: the order of drawing is the ranking, and the first N rows are the first N draws.
    Shards go to `folder`, each by rename; those already there are kept, and the engine is not even loaded if none is
    missing. A shard's name holds a digest of what its draws depend on: the prompts, seed, `max_tokens`, and the source.
    Shards of anything else are neither read nor deleted. What the store in use (`base.store`) has of the rest becomes
    shards too, and what is drawn goes into it; blocks that another process draws are waited for. Without a folder (None)
    nothing is written. A shard that cannot be read, or holds other
    draws than its name says, is drawn again, with a line.
    """
    whole, made = Asked(asked, draws), []
    if folder:
        _say_held(whole, folder, say)
    stored = Stored(stores.current() if folder and draws.made_with is not None else stores.NONE, whole, folder)
    missing = _left(stored)
    if missing and (taken := stored.take(missing)):
        say(f"{name}: {taken:,} of {_count(missing):,} draws were in the store {stored.store.folder}")
        missing = _left(stored)
    if missing:

        def keep(shard: pd.DataFrame, block: Block) -> None:
            if folder is None:
                made.append(shard)
            else:
                write_parquet(shard, whole.path(folder, block))
                stored.keep(shard, block)

        with Meter(name, _count(missing), folder, say) as meter:
            _draw(load_engine, stored, keep, meter)
    run = _run_of(_read(whole, folder) if folder else pd.concat(made, ignore_index=True), whole, name)
    if empty := count_empty(run):
        say(f"{name}: {empty:,} of {len(run):,} draws are empty; they are kept, and are no answer")
    return run


def count_empty(run: pd.DataFrame) -> int:
    """Draws without a word: of a model that ends at once, or of a server that hides what it wrote."""
    return int((run["text"].str.strip() == "").sum())


def _run_of(run: pd.DataFrame, whole: Asked, name: str) -> pd.DataFrame:
    """The run of what shards hold."""
    draws = whole.draws
    run["query_id"] = run["query_id"].astype(object)
    run = run if "tokens" in run.columns else run.assign(tokens=None)
    run = run.drop_duplicates(["query_id", "temperature", "draw"])  # shards overlap where one between others was lost
    kept = run["temperature"].isin([float(t) for t in draws.temperatures]) & (run["draw"] < draws.n)
    return _as_run(run[kept], whole.prompts, draws.temperatures, name)


def _left(stored: Stored, engine: Engine | type[Engine] = Engine) -> list[Block]:
    """The blocks that the folder does not hold; of nothing that is written, all."""
    whole = stored.asked
    held = whole.held(stored.folder)[0].values() if stored.folder else ()
    return _missing(held, len(whole.prompts), whole.draws, engine)


def _count(blocks: Iterable[Block]) -> int:
    return sum((b.q1 - b.q0) * (b.d1 - b.d0) for b in blocks)


def _say_held(whole: Asked, folder: Path, say: Say) -> None:
    """A line for what is reused of a folder's shards and for what is not read."""
    folder.mkdir(parents=True, exist_ok=True)
    for path, block in whole.held(folder)[0].items():
        if not _holds(path, block, whole.prompts):
            path.unlink()
            say(f"{path}: does not hold the draws that its name says: deleted, and drawn again")
    shards, others = whole.held(folder)
    if others:
        say(f"{folder}: {others:,} shards are of other draws (another seed, prompt, model …): left there, not read")
    total = len(whole.prompts) * whole.draws.per_prompt
    todo = _count(_missing(shards.values(), len(whole.prompts), whole.draws, Engine))
    if todo < total:
        say(f"reused {total - todo:,} of {total:,} draws from {folder}")


def _holds(path: Path, block: Block, prompts: Sequence[Prompt]) -> bool:
    """Whether a shard can be read and has the rows of its block, each once."""
    try:
        rows = pd.read_parquet(path, columns=["query_id", "draw", "temperature"])
    except (OSError, ValueError, KeyError):
        return False
    wanted = {(p.query_id, draw) for p in prompts[block.q0 : block.q1] for draw in range(block.d0, block.d1)}
    found = list(zip(rows["query_id"], rows["draw"]))
    return len(found) == len(wanted) and set(found) == wanted and set(rows["temperature"]) == {block.temperature}


def _read(whole: Asked, folder: Path) -> pd.DataFrame:
    try:
        return pd.concat([pd.read_parquet(path) for path in whole.held(folder)[0]], ignore_index=True)
    except (OSError, ValueError) as error:
        raise UserError(f"{folder}: a shard cannot be read ({error}); delete it and run again") from error


def _missing(held: Iterable[Block], queries: int, draws: Draws, engine: Engine | type[Engine]) -> list[Block]:
    """The blocks that no shard holds, each of about as many draws as the engine's shards have, and of no more tokens.

    How all the draws are divided does not depend on how many draw: rounding does on what shares a batch.
    """
    n, tokens = draws.n, getattr(engine, "shard_tokens", Engine.shard_tokens)
    most = max(1, min(engine.shard_rows, tokens // (draws.max_tokens or 1)))
    rows = max(
        min(most, getattr(engine, "shard_least", Engine.shard_least)),
        min(most, -(-queries * draws.per_prompt // PARTS)),
    )
    step = min(DRAWS, rows)  # of the engine and its longest draw, not of n: see DRAWS
    done = {float(t): np.zeros((queries, n), dtype=bool) for t in draws.temperatures}
    for block in held:
        if block.temperature in done:
            done[block.temperature][block.q0 : block.q1, block.d0 : block.d1] = True
    block = max(1, rows // min(n, step))
    out = []
    for temperature, drawn in done.items():
        for q0 in range(0, queries, block):
            q1 = min(q0 + block, queries)
            for d0 in range(0, n, step):
                d1 = min(d0 + step, n)
                row = q0
                while row < q1:  # neighbours that miss the same draws make one block
                    missing = np.flatnonzero(~drawn[row, d0:d1])
                    stop = row + 1
                    while stop < q1 and np.array_equal(drawn[stop, d0:d1], drawn[row, d0:d1]):
                        stop += 1
                    if len(missing):
                        first, last = d0 + int(missing[0]), d0 + int(missing[-1])
                        out.append(Block(temperature, row, stop, first, last + 1))
                    row = stop
    return out


def _draw(
    load_engine: Callable[[], Engine], stored: Stored, keep: Callable[[pd.DataFrame, Block], None], meter: Meter
) -> None:
    """Draws what is missing, but for what another process draws into the store: that is awaited."""
    engine = load_engine()

    def kept(shard: pd.DataFrame, block: Block) -> None:
        keep(shard, block)
        meter.kept(len(shard), int(shard["n_tokens"].sum()), engine.gpus)

    try:
        missing, told = _left(stored, engine), False
        while missing:
            others = _sample_shards(engine, stored, missing, kept, meter)
            missing = _left(stored, engine) if others else []
            if missing and stored.take(missing):
                missing = _left(stored, engine)
            elif missing:
                if not told:
                    meter.say(f"{meter.name}: another process makes {_count(missing):,} of these draws; waiting for it")
                told = True
                stored.store.wait()
    finally:
        engine.close()


def _sample_shards(
    engine: Engine, stored: Stored, missing: Sequence[Block], keep: Callable, meter: Meter
) -> list[Block]:
    """Draws the missing blocks and keeps each as a shard; as many at once as the engine takes. Returns those that are
    left: another process draws them, or has drawn some of them since."""
    asked, left = stored.asked, []

    def one(block: Block) -> None:
        with stored.claimed(block) as ours:
            if ours:
                draw(block)
            else:
                left.append(block)

    def draw(block: Block) -> None:
        sampling = Sampling(block.temperature, asked.draws.seed, asked.draws.max_tokens)
        drawn = engine.sample(asked.prompts[block.q0 : block.q1], range(block.d0, block.d1), sampling, meter.add)
        shard = pd.DataFrame([vars(d) for d in drawn]).assign(temperature=block.temperature)
        shard = shard.assign(tokens=chat.column([draw.tokens for draw in drawn]))
        keep(shard, block)

    if engine.at_once == 1:
        for block in missing:
            one(block)
        return left
    with ThreadPoolExecutor(engine.at_once, thread_name_prefix="shard") as pool:
        futures = [pool.submit(one, block) for block in missing]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            engine.close()  # ends the calls in flight, which the pool waits for
            raise
    return left


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
    return run[COLUMNS]
