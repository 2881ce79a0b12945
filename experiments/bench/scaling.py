"""How long devices wait: a paper preset's phases on paper for 1 to 8 devices, and shards given to real workers here.

    python experiments/bench/scaling.py [--part paper] [--part measured] [--out experiments/bench/scaling.csv]

Writes whole runs there, and their phases into scaling-phases.csv beside it.

On paper: shards of draws go to whichever device is free first, in their order, as a queue of workers does; a phase begins
when the one before has ended on all of them. A device that starts an engine is not waiting, one that has no shard left,
or stands by while another trains alone, is. A shard is busy to its last response, also where few of its responses go on.
Everything that is assumed is a field of `Assumed`, is printed, and was not measured on such a machine. Measured: shards that sleep in place of drawing, through `irlens.base.workers`.
"""

import argparse
import csv
import heapq
import math
import random
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

COLUMNS = (
    "kind", "case", "devices", "phase", "shards", "seconds", "busy_share", "waiting_share", "starting_share", "speedup",
)  # fmt: skip
GOAL = 0.10  # of the time that devices wait, at most


@dataclass(frozen=True)
class Assumed:
    """One arm of Table 2 at full size: 20,000 prompts an iteration, 10 draws of 300 tokens, a policy of 7B parameters.

    Rates are of one device; seconds, tokens and FLOP/s. Response lengths are log-normal with this mean and spread
    (standard deviation of the logarithm), cut at `longest`.
    """

    iterations: int = 3
    prompts: int = 20_000
    draws: int = 10
    mean_tokens: float = 300
    spread: float = 0.7
    longest: int = 2048
    prompt_tokens: int = 160
    draw_rate: float = 5_000  # tokens/s that vLLM draws from a 7B model with a full batch
    slowest_rate: float = 45  # tokens/s of a single sequence: a shard is not over before its longest response
    shard_tokens: int = 1_000_000  # S: a shard holds whole prompts of at most so many tokens
    least_shards: int = 1  # in a phase: S is less where it would make fewer
    engine_start: float = 60  # loading weights, kernels, graphs; once in each worker and phase
    model_start: float = 20  # of a worker that scores or trains
    judge_rate: float = 200_000  # tokens/s that the reward model reads: PairRM, 0.4B parameters
    judged_per_draw: float = (
        9 * 760 / 300
    )  # PairRM reads a draw with every other of its list: tokens read per token drawn
    parameters: float = 7e9
    train_flops: float = 0.4 * 989e12  # reached, of an H100's
    train_overhead: float = 0.10  # of a step, for gradients between devices; none on one device
    lists_per_prompt: int = 1
    list_draws: int = 10
    reference_flops: float = 0.4 * 989e12
    evaluated: int = 800  # prompts, of which each policy draws one response (and the start)
    merge_seconds: float = 60  # by the controller alone: tables, lists, checkpoints


def lengths(assumed: Assumed, count: int, seed: int) -> list[int]:
    """Tokens of `count` responses."""
    rng = random.Random(seed)
    mean = math.log(assumed.mean_tokens) - assumed.spread**2 / 2
    return [max(1, min(assumed.longest, round(rng.lognormvariate(mean, assumed.spread)))) for _ in range(count)]


def shards(assumed: Assumed, prompts: int, draws: int, seed: int) -> list[tuple[int, int]]:
    """(tokens, tokens of the longest response) of each shard: whole prompts in their order, expected tokens up to S."""
    per_shard = min(assumed.shard_tokens / (draws * assumed.mean_tokens), prompts / assumed.least_shards)
    per_shard = max(1, int(per_shard))
    drawn, out = lengths(assumed, prompts * draws, seed), []
    for start in range(0, prompts, per_shard):
        some = drawn[start * draws : min(start + per_shard, prompts) * draws]
        out.append((sum(some), max(some)))
    return out


@dataclass(frozen=True)
class Phase:
    """What devices did in a phase: seconds of the wall, and device seconds of work and of starting."""

    name: str
    shards: int
    wall: float
    busy: float
    starting: float


def scheduled(name: str, seconds: list[float], devices: int, start: float) -> Phase:
    """Shards in their order, each to the device that is free first; a device without a shard is not started."""
    used = min(devices, len(seconds))
    free = [start] * used
    heapq.heapify(free)
    for each in seconds:
        heapq.heappush(free, heapq.heappop(free) + each)
    return Phase(name, len(seconds), max(free, default=0.0), sum(seconds), used * start)


def drawing(assumed: Assumed, name: str, prompts: int, draws: int, devices: int, seed: int) -> Phase:
    """A shard takes its tokens at the full rate, or its longest response at that of one sequence, if that is more."""
    every = shards(assumed, prompts, draws, seed)
    seconds = [max(tokens / assumed.draw_rate, longest / assumed.slowest_rate) for tokens, longest in every]
    return scheduled(name, seconds, devices, assumed.engine_start)


def judging(assumed: Assumed, name: str, prompts: int, draws: int, devices: int, seed: int) -> Phase:
    every = shards(replace(assumed, shard_tokens=assumed.shard_tokens // 4), prompts, draws, seed)
    if not assumed.judged_per_draw:
        return Phase(name, 0, 0.0, 0.0, 0.0)
    per_token = assumed.judged_per_draw / 9 * (draws - 1 if draws > 1 else 1) / assumed.judge_rate
    return scheduled(name, [tokens * per_token for tokens, _ in every], devices, assumed.model_start)


def training(assumed: Assumed, devices: int) -> Phase:
    """References and steps over all lists, data-parallel: lists are dealt out evenly, so that all devices end together."""
    lists = assumed.prompts * assumed.lists_per_prompt
    tokens = lists * (assumed.prompt_tokens + assumed.list_draws * assumed.mean_tokens)
    reference = 2 * assumed.parameters * tokens / assumed.reference_flops
    steps = 6 * assumed.parameters * tokens / assumed.train_flops
    wall = (reference + steps * (1 + (assumed.train_overhead if devices > 1 else 0))) / devices
    busy = reference + steps  # talking to the others is waiting
    return Phase("train", lists, assumed.model_start + wall, busy, devices * assumed.model_start)


def alone(name: str, seconds: float) -> Phase:
    """What the controller does while every device stands by."""
    return Phase(name, 1, seconds, 0.0, 0.0)


def phases(assumed: Assumed, devices: int) -> list[Phase]:
    """One arm of the table, with the evaluation of every policy."""
    out = []
    for policy in range(assumed.iterations + 1):
        out.append(drawing(assumed, "evaluate", assumed.evaluated, 1, devices, 1000 + policy))
        out.append(judging(assumed, "judge evaluation", assumed.evaluated, 2, devices, 1000 + policy))
    for s in range(assumed.iterations):
        out.append(drawing(assumed, "draw", assumed.prompts, assumed.draws, devices, s))
        out.append(judging(assumed, "judge", assumed.prompts, assumed.draws, devices, s))
        out.append(training(assumed, devices))
        out.append(alone("merge", assumed.merge_seconds))
    return out


def today(assumed: Assumed, devices: int) -> list[Phase]:
    """As it was before workers: the first device draws, judges and evaluates; all train."""
    first = [phase for phase in phases(assumed, 1) if phase.name != "train"]
    return [*first, *(training(assumed, devices) for _ in range(assumed.iterations))]


def rows_of(kind: str, case: str, devices: int, found: list[Phase], alone_seconds: float) -> list[dict]:
    """A row for each phase, over all iterations, and one for the whole."""
    out = []
    for name in [*dict.fromkeys(phase.name for phase in found), "all"]:
        some = [phase for phase in found if name in (phase.name, "all")]
        wall, busy, starting = (sum(getattr(phase, part) for phase in some) for part in ("wall", "busy", "starting"))
        whole = devices * wall or 1.0
        row = {"kind": kind, "case": case, "devices": devices, "phase": name, "shards": sum(p.shards for p in some)}
        row |= {
            "seconds": round(wall, 2),
            "busy_share": round(busy / whole, 4),
            "starting_share": round(starting / whole, 4),
        }
        row |= {"waiting_share": round((devices * wall - busy - starting) / whole, 4)}
        out.append(row | {"speedup": round(alone_seconds / wall, 2) if name == "all" else ""})
    return out


CASES = {
    "shards of 1M tokens": Assumed(),
    "shards of 250k tokens": Assumed(shard_tokens=250_000),
    "shards of 4M tokens": Assumed(shard_tokens=4_000_000),
    "shards of 1M tokens, at least 32 a phase": Assumed(least_shards=32),
    "the same, a verifier judges": Assumed(least_shards=32, judged_per_draw=0.0),
    "the same, responses of up to 8k tokens": Assumed(
        least_shards=32, judged_per_draw=0.0, mean_tokens=1200, spread=0.9, longest=8192
    ),
}


def on_paper(counts: tuple[int, ...] = (1, 2, 4, 8)) -> list[dict]:
    """Every case on so many devices, and the first device doing all but the training, as it was."""
    out = []
    for case, assumed in CASES.items():
        single = sum(phase.wall for phase in phases(assumed, 1))
        for devices in counts:
            out += rows_of("paper", case, devices, phases(assumed, devices), single)
    single = sum(phase.wall for phase in phases(Assumed(), 1))
    return out + rows_of("paper", "the first device alone draws and judges", 8, today(Assumed(), 8), single)


# -- measured --------------------------------------------------------------------------------------------------------


class Sleeper:
    """Stands for an engine in a worker: a shard costs seconds, and no computing."""

    def __init__(self, start: float = 0.0):
        time.sleep(start)

    def shard(self, seconds: float) -> float:
        time.sleep(seconds)
        return seconds


def measured(counts: tuple[int, ...] = (1, 2), scale: float = 1 / 400) -> list[dict]:
    """The drawing phase of one iteration through real workers, a 400th as long."""
    from concurrent.futures import ThreadPoolExecutor
    from functools import partial
    from importlib import import_module

    from irlens.base.devices import Devices

    sleeper = import_module(Path(__file__).stem).Sleeper  # by a name under which a worker finds it, too
    assumed = Assumed(prompts=2_000, least_shards=32)
    every = shards(assumed, assumed.prompts, assumed.draws, 0)
    seconds = [scale * tokens / assumed.draw_rate for tokens, _ in every]
    out, single = [], 0.0
    for devices in counts:
        workers = Devices("local", devices).workers(partial(sleeper, 0.0))
        try:
            with ThreadPoolExecutor(devices) as pool:
                list(pool.map(lambda _: workers.call("shard", 0.0), range(devices)))  # they have started
                began = time.perf_counter()
                list(pool.map(lambda each: workers.call("shard", each), seconds))
                wall = time.perf_counter() - began
        finally:
            workers.close()
        single = single or wall
        out += rows_of("measured", "draw", devices, [Phase("draw", len(seconds), wall, sum(seconds), 0.0)], single)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=("paper", "measured"), action="append")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"))
    given = parser.parse_args()
    parts, rows = given.part or ["paper", "measured"], []
    if "paper" in parts:
        print("assumed:", ", ".join(f"{name} = {value:g}" for name, value in asdict(Assumed()).items()))
        rows += on_paper()
    if "measured" in parts:
        rows += measured()
    for row in rows:
        if row["kind"] == "measured" or row["devices"] == 8:
            print(", ".join(f"{name} {row[name]}" for name in COLUMNS if row[name] != ""), flush=True)
    for row in (row for row in rows if row["phase"] == "all" and row["devices"] == 8):
        verdict = "reached" if row["waiting_share"] < GOAL else "missed"
        hours, share = row["seconds"] / 3600, row["waiting_share"]
        print(f"{row['case']}: {hours:.2f} h on 8 devices, which wait {share:.1%} of it; under {GOAL:.0%} is {verdict}")
    whole = [row for row in rows if row["phase"] == "all"]
    write(whole, given.out)
    write([row for row in rows if row not in whole], given.out.with_stem(f"{given.out.stem}-phases"))


def write(rows: list[dict], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
