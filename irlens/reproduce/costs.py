"""What a recipe will cost: tokens from its settings, GPU-hours and memory from parameter counts, CPU minutes from rates.

Estimates from above: every prompt is taken to give all its lists, every response to have its data set's typical length.
Lists that are given (`list_file`) are counted where they are there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from irlens.base.errors import UserError
from irlens.commands import memory, validation
from irlens.commands.chat import WinRate
from irlens.commands.exchange import MixEval
from irlens.commands.reward_models import RewardBench
from irlens.commands.settings import Index, PassK, Recall, Sample, Train
from irlens.models import catalog
from irlens.reproduce.records import Step
from irlens.rerank import pair_protocols
from irlens.rerank.questions import Cost as Asked

GENERATE, READ = 0.10, 0.40  # the share of a GPU's peak that sampling, and reading or training, reach
PEAK = 989e12  # FLOP/s of an H100 in bfloat16
GIB = 2**30
TOKENS = {  # data set → typical tokens of a prompt, of a response
    "sums": (37, 49),
    "countdown": (25, 28),
    "gsm8k": (100, 200),
    "math": (110, 400),
    "ultrafeedback": (160, 400),
    "alpacaeval": (41, 512),  # of its baseline's answers, at four characters a token
    "mixeval": (120, 100),
}
CHARACTERS = 2.4  # of a token of `tiny`; those of others have 3 to 4
TEMPLATE = 300  # tokens of what a judge is told beside the prompt and the answers
SIZES = {
    "sums": 1000,
    "countdown": 1000,
    "gsm8k": 1319,
    "math": 5000,
    "alpacaeval": 805,
    "mixeval": 4000,
}  # problems in the split test
CORPORA = {"nq": (21_015_324, 140), "facts": (2_000, 20)}  # passages, tokens of one
SPEED, LIST, CANDIDATE, PASSAGES = (
    32_000,
    0.005,
    0.0075,
    400,
)  # tiny on one core: tokens/s, s per list and candidate, …/s
JUDGED = 2_000  # draws/s that tiny-rm scores or is audited on, on one core
FORMULA = (
    "GPU-hours on one H100, 989 TFLOP/s in bfloat16: 2·parameters FLOP for a token generated (10 % of the peak) or read by "
    "the reference, a reward model or an encoder (40 %), 6·parameters for a token trained on (40 %). GPU memory: of one "
    "GPU in the phase that needs most, for the longest lists that the settings allow; drawing, scoring and training take "
    "turns, and --shard divides training. Tokens from above: every prompt gives all its lists. CPU minutes: on one core, from "
    f"measured rates of the embedded models ({SPEED:,} tokens drawn/s; {LIST:g} s a list and {CANDIDATE:g} s a candidate; "
    f"{JUDGED:,} draws/s scored)."
)


@dataclass(frozen=True)
class Cost:
    """What a step, or several, will do. None: not known, since a model's parameters are not."""

    prompts: int = 0
    draws: int = 0
    lists: int = 0
    generated: int = 0  # tokens
    trained: int = 0  # tokens, over all epochs
    read: int = 0  # tokens that a reference, reward model or encoder reads
    gpu_hours: float | None = 0.0
    gpu_gib: float | None = 0.0
    cpu_minutes: float | None = 0.0
    asked: int = 0  # questions to judges at servers
    judge_reads: int = 0  # tokens of these questions
    judge_writes: int = 0  # and of the answers, as long as they may be
    dollars: float | None = 0.0  # of these tokens

    def __add__(self, other: Cost) -> Cost:
        """Both one after the other: sums, but for the memory, of which the larger counts."""
        pairs = {f.name: (getattr(self, f.name), getattr(other, f.name)) for f in fields(self)}
        return Cost(**{n: None if None in p else max(p) if n == "gpu_gib" else sum(p) for n, p in pairs.items()})


def total(costs: Iterable[Cost]) -> Cost:
    """The cost of all of them, one after the other."""
    return sum(costs, Cost())


def of_steps(steps: Sequence[Step]) -> list[Cost]:
    """The cost of each step; a model `@name` is the one that step trains."""
    models = {step.name: step.settings.model for step in steps if step.stage == "train"}
    drawn = {f"@{step.name}": step.settings for step in steps if step.stage in ("sample", "passk")}
    found = []
    for step in steps:
        if isinstance(step.settings, WinRate):
            found.append(_winrate(step.settings, drawn.get(step.settings.outputs)))
        elif isinstance(step.settings, MixEval):
            found.append(_mixeval(step.settings, drawn.get(next(iter(step.settings.runs or ()), None))))
        elif isinstance(step.settings, RewardBench):
            found.append(_audit(step.settings, drawn.get(step.settings.run)))
        else:
            found.append(of_step(step.settings, models))
    return found


def in_words(cost: Cost) -> str:
    """What judges are asked, in a line, and what it costs where prices are known."""
    line = Asked(cost.asked, cost.judge_reads, cost.judge_writes).in_words()
    return line + (", price not known (--price)" if cost.dollars is None else f", at most about ${cost.dollars:,.2f}")


def of_step(settings, models: dict[str, str] | None = None) -> Cost:
    """The cost of a stage with these settings; of a stage that neither samples, trains nor encodes, nothing."""
    if isinstance(settings, Train):
        return _train(settings, _policy(settings.model))
    if isinstance(settings, (PassK, Sample)):
        name = (models or {}).get(settings.model.removeprefix("@"), settings.model)
        policy = _policy(name)
        dataset = _kind(settings.dataset) or policy.dataset
        prompts = settings.limit or SIZES.get(dataset, 1000)
        draws = prompts * settings.n * len(settings.temperature)
        generated = draws * TOKENS.get(dataset, TOKENS["gsm8k"])[1]
        work = _Work(generated)
        return Cost(prompts, draws, generated=generated, **_machine(policy, work, replace(settings, model=name)))
    if isinstance(settings, (Recall, Index)):
        return total(_encode(name, settings.dataset) for name in settings.retriever.split(","))
    return Cost()


def _winrate(settings: WinRate, draws: Sample | None) -> Cost:
    """A judge at a server is asked about each prompt; a reward model reads both answers. draws: of what is judged."""
    asked, answer, prompts = _answers(draws)
    if settings.judge in pair_protocols.NAMES:
        published = pair_protocols.PUBLISHED.get(settings.judge)
        longest = int(published.body["max_tokens"]) if published else settings.judge_tokens
        calls = prompts * (1 + settings.both_orders)
        return _asked(calls, calls * (TEMPLATE + asked + 2 * answer), calls * longest, settings.price)
    found = catalog.REWARDS.get((settings.judge or "").removeprefix("reward:"))
    if found is None:
        return Cost(prompts)
    read = 2 * prompts * _read_by(found.name, asked, answer, 2)
    return Cost(prompts, read=read, gpu_hours=2 * found.parameters * read / READ / PEAK / 3600)


def _audit(settings: RewardBench, draws: Sample | PassK | None) -> Cost:
    """A reward model reads every draw; those of an embedded one, mostly a few texts drawn often, are counted alone."""
    found = catalog.REWARDS.get((settings.reranker or "").removeprefix("reward:"))
    if draws is None or found is None:
        return Cost()
    dataset = _kind(draws.dataset) or _policy(draws.model).dataset
    count = (draws.limit or SIZES.get(dataset, 1000)) * draws.n
    if found.name in catalog.EMBEDDED:
        return Cost(cpu_minutes=count / JUDGED / 60)
    read = count * _read_by(found.name, *TOKENS.get(dataset, TOKENS["gsm8k"]), draws.n)
    return Cost(read=read, gpu_hours=2 * found.parameters * read / READ / PEAK / 3600)


def _mixeval(settings: MixEval, draws: Sample | None) -> Cost:
    """A judge at a server is asked about each response; rules ask nobody."""
    asked, answer, prompts = _answers(draws)
    if settings.judge == "rules":
        return Cost(prompts)
    return _asked(prompts, prompts * (TEMPLATE + asked + answer), prompts * settings.judge_tokens, settings.price)


def _asked(calls: int, read: int, written: int, price: tuple[float, ...] | None) -> Cost:
    spent = None if price is None else Asked(calls, read, written, price).dollars
    return Cost(calls, asked=calls, judge_reads=read, judge_writes=written, dollars=spent)


def _answers(draws: Sample | None) -> tuple[int, int, int]:
    """(typical tokens of a prompt, of an answer, how many prompts) of what is judged: by default AlpacaEval's."""
    dataset = _kind(draws.dataset) if draws else "alpacaeval"
    asked, answer = TOKENS.get(dataset, TOKENS["alpacaeval"])
    return asked, answer, (draws and draws.limit) or SIZES.get(dataset, SIZES["alpacaeval"])


def _kind(dataset: str | None) -> str | None:
    """The data set's name; `mixeval` for a folder of it."""
    from irlens.tasks import mixeval

    return "mixeval" if dataset and mixeval.is_folder(Path(mixeval.place(dataset)).expanduser()) else dataset


def parameters(name: str) -> int | None:
    """How many parameters a policy has; None where it is not known."""
    return _policy(name).parameters


def _policy(name: str) -> catalog.Model:
    """The catalog's model; of a folder, with the parameters that its config.json makes."""
    from irlens.models import stand_ins

    try:
        found = catalog.model(name)
        if found.parameters is None and Path(found.repo).is_dir():
            return replace(found, parameters=stand_ins.parameters(stand_ins.config_of(Path(found.repo))))
        return found
    except UserError:
        return catalog.Model(name, name)


def _train(settings: Train, policy: catalog.Model) -> Cost:
    """All iterations, the held-out draws before and after each, and the test draws of the start and the chosen."""
    if settings.list_file:
        return _off_policy(settings, policy)
    asked, answer = _tokens(settings, policy)
    rounds = settings.iterations * settings.prompts
    draws = rounds * settings.n * len(settings.temperature)
    draws += 2 * rounds * settings.lists * (settings.tier == "easiest")  # answers to unrelated prompts
    lists, size = rounds * settings.lists, settings.size
    once = lists * (asked + size * answer)
    measured = len(validation.measured(settings, settings.iterations))
    found = _of_training(settings, policy, _Lists(rounds, lists, size, once), draws, measured)
    return found + _learned(settings, policy, rounds) if settings.loss.learns_reward else found


def _learned(settings: Train, policy: catalog.Model, lists: int) -> Cost:
    """RFT's reward model: trained on so many lists of a demonstration and all draws, it scores these, and after the first
    iteration the policy and the start read them."""
    base = policy
    if name := settings.learning.model:
        base = catalog.REWARDS.get(name) or _policy(name)
    size, once = settings.drawn + 1, sum(_tokens(settings, policy))
    trained, scored = settings.learning.epochs * lists * size * once, lists * settings.drawn * once
    again = 2 * scored * (settings.iterations - 1) // settings.iterations
    cost = Cost(trained=trained, read=scored + again)
    if base.name in catalog.EMBEDDED:
        return replace(cost, cpu_minutes=settings.learning.epochs * lists * (LIST + size * CANDIDATE) / 60)
    if base.parameters is None or policy.parameters is None:
        return replace(cost, gpu_hours=None)
    flop = base.parameters * (6 * trained + 2 * scored) + 2 * policy.parameters * again
    return replace(cost, gpu_hours=flop / READ / PEAK / 3600)


def _off_policy(settings: Train, policy: catalog.Model) -> Cost:
    """One training on lists that are given, and with a data set the held-out draws before and after it; of lists that are
    not there (yet) nothing is known."""
    measured = 2 if settings.dataset else 0
    given = _given(settings)
    if given is None:
        return replace(
            _of_training(settings, policy, _Lists(), 0, measured), gpu_hours=None, gpu_gib=None, cpu_minutes=None
        )
    return _of_training(settings, policy, given, 0, measured)


def _given(settings: Train) -> _Lists | None:
    """What the file of lists holds; None where there is none. Its tokens are reckoned from its characters."""
    from irlens.tasks import forms
    from irlens.train import list_files, preferences

    if not Path(settings.list_file).exists():
        return None
    mapped = forms.parse_columns(settings.columns, (*preferences.NAMES, *forms.NAMES))
    there = list_files.columns(settings.list_file) if mapped else []
    found = list_files.read(settings.list_file, {name: column for name, column in mapped.items() if column in there})
    lists = found.groupby(["query_id", "iteration", "list"], sort=False)
    asked = lists["query"].first().str.len().sum()
    once = int((asked + found["text"].str.len().sum()) / CHARACTERS) + len(found)  # each response has an end
    return _Lists(found["query_id"].nunique(), lists.ngroups, len(found) / lists.ngroups, once)


def _tokens(settings: Train, policy: catalog.Model) -> tuple[int, int]:
    """Typical tokens of a prompt and of a response."""
    return TOKENS.get(settings.dataset or policy.dataset, TOKENS["gsm8k"])


def _of_training(settings: Train, policy: catalog.Model, lists: _Lists, draws: int, measured: int) -> Cost:
    """What it costs to train on lists out of so many draws, and to measure so many policies, the start among them; the
    start and the chosen one also on test problems."""
    asked, answer = _tokens(settings, policy)
    tested = 0 if settings.eval_split == "test" or not measured else 2 * settings.test_limit
    held_out = (measured * settings.eval_limit + tested) * settings.eval_n * len(settings.eval_temperature)
    generated, trained = (draws + held_out) * answer, settings.epochs * lists.once
    read, scored, judged_here = lists.once, 0.0, 0
    for name, count, of in _judges(settings, draws, held_out):
        judged = count * _read_by(name, asked, answer, of)
        read += judged
        if name in catalog.EMBEDDED:
            judged_here += count
            continue
        known = (found := catalog.reward(name)) and found.parameters
        scored = None if known is None or scored is None else scored + 2 * known * judged
    often = settings.epochs * lists.count
    work = _Work(generated, trained, lists.once, scored, often, lists.size, judged_here)
    cost = _machine(policy, work, settings)
    return Cost(lists.prompts, draws + held_out, lists.count, generated, trained, read, **cost)


def _judges(settings: Train, draws: int, held_out: int) -> list[tuple[str, int, int]]:
    """(reward model, responses that it judges, how many stand in a list)."""
    found = [(settings.reward, draws, settings.n * len(settings.temperature))] if settings.reward else []
    if judge := settings.eval_reward or settings.reward:
        found.append((judge, held_out, 2 * settings.eval_n))
    return found


def _read_by(name: str, asked: int, answer: int, of: int) -> int:
    """Tokens that a reward model reads for a response: PairRM reads it with every other one of its list, both ways."""
    found = catalog.reward(name)
    pairs = found is not None and found.form == "pairrm"
    return (of - 1) * (asked + 2 * answer) if pairs else asked + answer


@dataclass(frozen=True)
class _Lists:
    """Prompts that give lists, lists of so many candidates in the mean, and the tokens of reading all of them once."""

    prompts: int = 0
    count: int = 0
    size: float = 0.0
    once: int = 0


@dataclass(frozen=True)
class _Work:
    """What a machine does: tokens generated, trained on (over all epochs) and read by the reference; FLOP of scoring (None:
    not known); lists trained on (over all epochs) of so many candidates; draws that an embedded reward model
    scores."""

    generated: int
    trained: int = 0
    reference: int = 0
    scored: float | None = 0.0
    lists: int = 0
    size: float = 0
    judged: int = 0


def _machine(policy: catalog.Model, work: _Work, settings: Train | PassK | Sample) -> dict[str, float | None]:
    """gpu_hours, gpu_gib and cpu_minutes of this work."""
    if policy.name in catalog.EMBEDDED:
        seconds = work.generated / SPEED + work.lists * (LIST + work.size * CANDIDATE) + work.judged / JUDGED
        return {"cpu_minutes": None if work.scored is None or work.scored else seconds / 60}
    n, needs = policy.parameters, list(memory.needs(settings, ask=False))
    if n is None or work.scored is None or not needs:
        return {"gpu_hours": None, "gpu_gib": None}
    flop = 2 * n * work.generated / GENERATE + (6 * n * work.trained + 2 * n * work.reference + work.scored) / READ
    return {"gpu_hours": flop / PEAK / 3600, "gpu_gib": max(need.total for need in needs) / GIB}


def _encode(name: str, dataset: str) -> Cost:
    """A corpus encoded by a retriever; BM25 and the embedded encoder run on the CPU."""
    passages, tokens = CORPORA.get(dataset, (None, None))
    if name == "bm25" or name == "tiny-e5":
        return Cost(cpu_minutes=None if passages is None else passages / PASSAGES / 60)
    try:
        n = catalog.encoder(name).parameters
    except UserError:
        n = None
    if n is None or passages is None:
        return Cost(gpu_hours=None, gpu_gib=None)
    read = passages * tokens
    return Cost(read=read, gpu_hours=2 * n * read / READ / PEAK / 3600, gpu_gib=2 * n / GIB)
