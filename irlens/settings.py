"""What each stage can be told: frozen settings with their defaults, shared by commands, recipes and the demo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, dataclass, field, fields

from irlens import seeds
from irlens.errors import UserError, did_you_mean


def _option(default, text: str, *flags: str):
    """A setting with its default, what it means, and its flags on the command line (default: --its-name)."""
    return field(default=default, metadata={"help": text, "flags": flags})


def _argument(default, text: str):
    """A setting that the command line takes by its place, not by a flag."""
    return field(default=default, metadata={"help": text, "argument": True})


def _model():
    return _option("tiny", "A name (tiny, mathstral, …), a hub id or a folder.")


def _dataset():
    return _option(None, "A name (sums, gsm8k, facts, …), a file, a folder or module:load. Default: the model's own.")


def _split():
    return _option(None, "The split of the data set; default test, or train for training material.")


def _limit(default: int | None = None):
    return _option(default, "Use only the first so many topics.")


def _draws(default: int):
    return _option(default, "Draws per prompt and temperature.", "-n", "--draws")


def _seed():
    return _option(0, "Seed of the draws, the lists, the training and the tests, from 0.")


def _max_tokens():
    return _option(None, "Longest response in tokens. Default: the model's own.")


def _thought():
    return _option(
        None,
        "Tags around a thought, such as '<think>,</think>'; verifiers read what follows it. none: there are no thoughts. "
        "Default: the tokenizer's, or what the run's folder says.",
    )


def _max_prompt_length():
    return _option(
        None,
        "Longest prompt in tokens; longer ones are left out, and counted. 0 leaves none out. Default: what leaves room for "
        "the response, and 1000 for chat data.",
    )


def _out():
    return _option(None, "Output folder; the same command continues it. Default: under irlens-out/.")


class Seeded:
    """Settings with a `seed`. Raises UserError for one that has no random numbers."""

    def __post_init__(self):
        seeds.check(self.seed)

    def seed_of(self, purpose: str, iteration: int = 0) -> int:
        """Where the random numbers of a purpose begin (`seeds.derive`)."""
        return seeds.derive(self.seed, iteration, purpose)


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """Which engine draws and how it is run: the options that every sampling stage shares.

    `engine`, `inner_engine`, `chat`, `messages_as`, `served_model` and `engine_args` say what the draws are; the others
    only how fast.
    """

    engine: str | None = _option(
        None, "transformers, vllm, openai, ray or module:load. Default: chosen by what is there, and said."
    )
    batch_size: int | None = _option(None, "Sequences in flight; changes speed and memory, not the draws.")
    num_workers: int | None = _option(None, "Workers of the ray engine. Default: one per GPU, without GPUs per core.")
    inner_engine: str | None = _option(None, "The engine inside each ray worker: transformers or vllm.")
    base_url: str | None = _option(None, "Servers of the openai engine, such as http://host:8000/v1, comma-separated.")
    api_key_env: str = _option("OPENAI_API_KEY", "Environment variable that holds the server's key, if it wants one.")
    concurrency: int = _option(64, "Requests in flight of the openai engine, over all servers.")
    timeout: float = _option(600.0, "Seconds that one request of the openai engine may take.")
    chat: bool = _option(False, "Chat completions: the server applies its own template.")
    messages_as: str | None = _option(
        None, "Where a chat template refuses them: user (system prompt before the user's) or text (all as one turn)."
    )
    served_model: str | None = _option(None, "What the server calls the model. Default: the only one that it serves.")
    tensor_parallel: int = _option(1, "GPUs per copy of the model (vllm).")
    data_parallel: int = _option(1, "Copies of the model that one vllm engine spreads its prompts over.")
    engine_args: str | None = _option(
        None, "JSON object passed through: to vllm's LLM(...), or into every request of the openai engine."
    )


@dataclass(frozen=True)
class PassK(Seeded, EngineOptions):
    """Pass@N of a model's draws, per temperature."""

    model: str = _model()
    dataset: str | None = _dataset()
    split: str | None = _split()
    limit: int | None = _limit()
    n: int = _draws(100)
    temperature: tuple[float, ...] = _option(
        (0.1, 0.2, 0.5, 0.7, 1.0), "Temperatures, separated by commas; 0 is greedy."
    )
    at: tuple[int, ...] | None = _option(None, "The N of Pass@N, separated by commas. Default: 1,3,5,10,… up to n.")
    seed: int = _seed()
    max_tokens: int | None = _max_tokens()
    thought: str | None = _thought()
    max_prompt_length: int | None = _max_prompt_length()
    out: str | None = _out()


@dataclass(frozen=True, kw_only=True)
class EncoderOptions:
    """How a corpus is encoded and indexed: what `index` and `recall` share."""

    index: str | None = _option(None, "FAISS factory string: Flat, HNSW32, IVF4096,PQ64 … Default: by corpus size.")
    train_size: int | None = _option(None, "Vectors that train the index. Default: 50 per cell.")
    query_prompt: str | None = _option(None, "Text before every question. Default: the model's.")
    passage_prompt: str | None = _option(None, "Text before every passage. Default: the model's.")
    dtype: str = _option("float32", "Precision of the encoder: float32, float16 or bfloat16.")
    store: str = _option("float32", "Precision of the vectors on disk: float32 or float16.")
    shard_size: int = _option(4096, "Passages in a file of vectors: what a kill can cost.")
    processes: int = _option(1, "Encoding processes on the CPU; several GPUs are used by themselves.")
    batch_size: int | None = _option(None, "Texts encoded at once; changes speed and memory, not the vectors.")


@dataclass(frozen=True)
class Index(Seeded, EncoderOptions):
    """A corpus encoded and indexed."""

    retriever: str = _option("tiny-e5", "e5, e5-small, e5-large, e5-instruct, tiny-e5, a hub id or a folder.")
    dataset: str = _option("facts", "facts, nq, a BEIR folder, or an ir_datasets id.")
    seed: int = _seed()
    out: str | None = _out()


@dataclass(frozen=True)
class Recall(Seeded, EncoderOptions):
    """Recall@N of one or more retrievers on a corpus."""

    retriever: str = _option(
        "bm25,tiny-e5", "bm25, e5, tiny-e5, a hub id, a folder; several separated by commas are compared."
    )
    dataset: str = _option("facts", "facts, nq, a BEIR folder, or an ir_datasets id.")
    split: str | None = _split()
    limit: int | None = _limit()
    at: tuple[int, ...] = _option((1, 5, 10, 20, 50, 100), "The N of Recall@N, separated by commas.")
    nprobe: int | None = _option(None, "Cells of an IVF index that are searched.")
    ef_search: int | None = _option(None, "Breadth of the search in an HNSW index.")
    refine: int | None = _option(None, "Candidates per result of an approximate index that are scored exactly.")
    rerank: str | None = _option(
        None, "Cross-encoder as the second stage, such as cross-encoder/ms-marco-MiniLM-L6-v2."
    )
    rerank_depth: int = _option(100, "Passages per question that it reads.")
    seed: int = _seed()
    index_folder: str | None = _option(None, "Folder of `irlens index`. Default: index-RETRIEVER-DATASET beside --out.")
    out: str | None = _out()


@dataclass(frozen=True)
class Mine(Seeded, EngineOptions):
    """Lists with negatives in tiers of hardness."""

    model: str = _model()
    dataset: str | None = _dataset()
    split: str | None = _split()
    limit: int | None = _limit(500)
    tiers: str = _option(
        "easiest,easy,hard,hardest", "Tiers: easiest, easy, hard, hardest, top-ranked, near-miss, margin."
    )
    positives: str = _option("gold", "The positives of a list: the `gold` solution, a `correct` draw, or `both`.")
    per_tier: int = _option(1, "Negatives per prompt and tier.")
    n: int = _draws(8)
    hard_temperature: float = _option(1.0, "Temperature of the tiers easy and hard.")
    hardest_temperature: float = _option(0.7, "Temperature of the tier hardest.")
    run: str | None = _option(None, "A run with these draws (file, or folder of passk) to mine instead of drawing.")
    unrelated: str | None = _option(None, "Data set whose prompts give the tier easiest.")
    related: str = _option(
        "random", "Which other prompts give the tier easy: random, or nearest by bm25 or an encoder."
    )
    reward_run: str | None = _option(None, "The draws as `irlens rerank` scored them: for near-miss, margin and gaps.")
    margin: float = _option(
        0.0, "Tier margin: how far below the positive's score (reward; else nats of log-probability)."
    )
    percentage: float | None = _option(
        None, "Tier margin by share of the positive's score, such as 0.95; rewards only."
    )
    allow_reuse: bool = _option(False, "One response may be a negative of several prompts.")
    text_threshold: float = _option(
        1.0, "Similarity to a positive over words that makes a false negative; 1: same words."
    )
    encoder: str | None = _option(
        None, "An encoder (tiny-e5, e5, …): similarity of negatives and positives by embedding."
    )
    embedding_threshold: float | None = _option(
        None, "Cosine to a positive that makes a false negative. Default: 0.95, or none where a verifier knows better."
    )
    reward_margin: float | None = _option(
        None,
        "A reward above the positive's less this makes a false negative. Default: 0 without a verifier, else none.",
    )
    hardness: bool = _option(True, "Report how hard each tier is, log-probabilities under the policy included.")
    seed: int = _seed()
    max_tokens: int | None = _max_tokens()
    thought: str | None = _thought()
    max_prompt_length: int | None = _max_prompt_length()
    out: str | None = _out()


@dataclass(frozen=True)
class Train(Seeded, EngineOptions):
    """LarPO iterations, and Pass@1 and Pass@N on held-out problems before, between and after."""

    objective: str = _option(
        "contrastive", "pairwise, contrastive, lambdarank, listmle, a baseline (sft, simpo, …) or module:function."
    )
    model: str = _model()
    dataset: str | None = _dataset()
    split: str | None = _split()
    iterations: int = _option(3, "LarPO iterations: sample, judge, train.")
    prompts: int = _option(500, "Prompts per iteration.")
    same_prompts: bool = _option(False, "Every iteration takes the same prompts, not the next ones.")
    n: int = _draws(8)
    temperature: tuple[float, ...] = _option((1.0,), "Temperatures of the draws, separated by commas.")
    memory: str = _option("current", "Whose draws lists are cut from: current, previous (and current), or all.")
    reward: str | None = _option(
        None, "A reward model that judges draws in the verifier's place: fsfairx, pairrm, a hub id or folder of one."
    )
    eval_reward: str | None = _option(None, "Another one for held-out draws. Default: the one that judges.")
    tier: str = _option("own", "Negatives: own (wrong draws), easy or easiest (answers to other prompts).")
    positives_from: str | None = _option(None, "own, gold or both. Default: the objective's; SPIN and IRFT take gold.")
    positives: int | None = _option(None, "Positives per list. Default: the paper's for the objective.")
    negatives: int | None = _option(None, "Negatives per list. Default: the paper's for the objective.")
    list_size: int | None = _option(None, "Candidates per list, in the place of --negatives.")
    lists: int = _option(1, "Lists per prompt.")
    beta: float | None = _option(None, "β of γ = β·(log π − log π_ref). Default: the model's, or the objective's.")
    nll: float | None = _option(None, "Weight of the positives' NLL per token, added to the loss (RPO).")
    length_normalised: bool = _option(False, "Log-probabilities per token in the place of sums.")
    objective_args: str | None = _option(None, "JSON object of the objective's other parameters: '{\"weighted\": 1}'.")
    learning_rate: float | None = _option(None, "Default: the model's.")
    epochs: int = _option(2, "Epochs per iteration.")
    batch_lists: int = _option(32, "Lists per optimiser step, over all processes.")
    lists_at_once: int | None = _option(
        None, "Lists per pass; the rest of a step is accumulated. Default: by the model's size."
    )
    max_length: int | None = _option(None, "Tokens of prompt and response; longer lists are left out, and counted.")
    pack_up_to: int | None = _option(
        None,
        "Tokens of a list, its prompt once, up to which its responses share a row; speed and memory only. Default: "
        "where that is estimated to be faster.",
    )
    lora_rank: int | None = _option(None, "Train LoRA adapters of this rank and merge them (extra `lora`).")
    quantize: str | None = _option(None, "4bit: QLoRA, with --lora-rank (extra `lora`).")
    report_to: str = _option("none", "wandb, tensorboard, mlflow … (as transformers reports).")
    trainer_args: str | None = _option(
        None, 'JSON object of transformers.TrainingArguments: \'{"fsdp": "full_shard"}\'.'
    )
    patience: int | None = _option(None, "Iterations without a better validation value before it stops.")
    eval_split: str | None = _option(
        None, "Held-out split in between; test chooses nothing. Default: validation, else out of training."
    )
    eval_limit: int = _option(200, "Held-out problems in between.")
    eval_n: int = _option(16, "Draws per held-out problem.")
    eval_temperature: tuple[float, ...] = _option((1.0,), "Temperatures of the held-out draws; the first one chooses.")
    test_limit: int = _option(500, "Test problems at the end, for the start and the chosen policy; 0 for none.")
    seed: int = _seed()
    max_tokens: int | None = _max_tokens()
    thought: str | None = _thought()
    max_prompt_length: int | None = _max_prompt_length()
    out: str | None = _out()


PASSK_OUT = "irlens-out/passk-tiny-sums"  # what `irlens passk` writes by default
VERIFIERS = "gsm8k, math, nq-exact, nq-has-answer, choice, regex:PATTERN, or module:function (runs its code)"


@dataclass(frozen=True, kw_only=True)
class ScoringOptions:
    """What a reranker may need to know: the options that `rerank` and `best-of-n` share."""

    dataset: str | None = _option(None, "Where the run's prompts come from. Default: what the run's folder says.")
    split: str | None = _option(None, "The split of the data set. Default: what the run's folder says.")
    verifier: str | None = _option(None, f"Whose answers are voted on: {VERIFIERS}. Default: the data set's.")
    thought: str | None = _thought()
    policy: str | None = _option(
        None, "Model whose likelihood is meant. Default: the run's own, as it records or names it."
    )
    scoring_batch: int | None = _option(None, "Texts read at once by a scoring model; changes speed and memory only.")
    judge_model: str | None = _option(None, "What the judge's server calls it. Default: the only one that it serves.")
    judge_opponents: int | None = _option(None, "Others that a pairwise judge sees per response. Default: all.")
    judge_tokens: int = _option(64, "Longest answer of the judge; more for one that thinks aloud.")
    base_url: str | None = _option(None, "Servers of the judge, such as http://host:8000/v1, comma-separated.")
    api_key_env: str = _option("OPENAI_API_KEY", "Environment variable that holds the server's key, if it wants one.")
    concurrency: int = _option(64, "Requests to the judge in flight.")
    timeout: float = _option(600.0, "Seconds that one request may take.")
    engine_args: str | None = _option(None, "JSON object passed into every request, such as a top_k; null leaves out.")


@dataclass(frozen=True)
class Rerank(Seeded, ScoringOptions):
    """A run in a new order."""

    run: str = _argument(PASSK_OUT, "A run with texts: Parquet, the folder of a passk, or a file of lists.")
    reranker: str = _option(
        "majority",
        "majority, likelihood, mean-likelihood, length, random, oracle, fsfairx, pairrm, reward:MODEL, "
        "cross-encoder:MODEL, judge, judge:pointwise, vote:RERANKER (votes weighted by its scores), a hub id or "
        "folder of a reward model, or module:function.",
    )
    qrels: str | None = _option(None, "Qrels, for the oracle and to say what the first is worth. Default: the run's.")
    seed: int = _seed()
    out: str | None = _out()


@dataclass(frozen=True)
class Verify(Seeded):
    """A run judged right or wrong: qrels."""

    run: str = _argument(PASSK_OUT, "A run with texts: Parquet, or the folder of a passk or a rerank.")
    verifier: str | None = _option(None, f"{VERIFIERS}. Default: the data set's.")
    dataset: str | None = _option(None, "Where the gold answers come from. Default: what the run's folder says.")
    split: str | None = _option(None, "The split of the data set. Default: what the run's folder says.")
    judge_unfinished: bool = _option(False, "Judge responses that never finished too; they are wrong otherwise.")
    thought: str | None = _thought()
    seed: int = _seed()
    out: str | None = _out()


@dataclass(frozen=True)
class BestOfN(Seeded, ScoringOptions):
    """What rerankers pick among N candidates, and how well they rank all of them."""

    run: str = _argument(PASSK_OUT, "A run: Parquet, the folder of a passk or a rerank, or a file of graded lists.")
    qrels: str | None = _argument(None, "Qrels: Parquet, BEIR .tsv, TREC, or such a folder. Default: the run's own.")
    rerankers: str = _option(
        "majority,likelihood,mean-likelihood,length",
        "Rerankers (see `irlens rerank --help`; score: the run's own), separated by commas. oracle and random are "
        "always there. Default: those of these that the run allows.",
    )
    temperature: tuple[float, ...] | None = _option(None, "Only the draws at these temperatures. Default: all, apart.")
    at: tuple[int, ...] | None = _option(None, "The N, separated by commas. Default: 1,3,5,10,… up to the candidates.")
    right_from: float | None = _option(
        None, "Least grade that is right, for RR and AUC. Default: 1; of fractional grades, above one half."
    )
    seed: int = _seed()
    out: str | None = _out()


def settings_from(kind: type, values: dict, where: str):
    """A settings object of class `kind` from plain values (a recipe's). Raises UserError for an unknown key or type, or
    one that is missing."""
    known = {f.name: f for f in fields(kind)}
    for key, value in values.items():
        if key not in known:
            raise UserError(f"{where}: unknown setting {key!r}; {did_you_mean(key, known)}")
        if not _fits(value, str(known[key].type)):
            raise UserError(f"{where}: {key} = {value!r} is not of type {known[key].type}")
    for f in known.values():
        if f.default is MISSING and f.default_factory is MISSING and f.name not in values:
            raise UserError(f"{where}: {f.name} is missing")
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def _fits(value, annotation: str) -> bool:
    allowed = [part.strip() for part in annotation.split("|")]
    if isinstance(value, bool):
        return "bool" in allowed
    if isinstance(value, (list, tuple)):
        inner = next((part[len("tuple[") :].split(",")[0] for part in allowed if part.startswith("tuple[")), None)
        return inner is not None and len(value) > 0 and all(_fits(v, inner) for v in value)
    if isinstance(value, int) and "float" in allowed:
        return True
    return type(value).__name__ in allowed


# -- checks --------------------------------------------------------------------------------------------------------


def at_least(least: int, **values: int | None) -> None:
    """Raises UserError, naming the option, for a value below `least`; None is one that was not given."""
    for name, value in values.items():
        if value is not None and value < least:
            raise UserError(f"--{name.replace('_', '-')} must be at least {least}, got {value}")


def positive(**values: float | None) -> None:
    """Raises UserError for a value that is not a number above 0; None is one that was not given."""
    for name, value in values.items():
        if value is not None and not 0 < value < float("inf"):
            raise UserError(f"--{name.replace('_', '-')} must be a number above 0, got {value:g}")


def heat(**values: float | None) -> None:
    """Raises UserError for a temperature that is not a number of 0 (greedy) or above; None is one that was not given."""
    for name, value in values.items():
        if value is not None and not 0 <= value < float("inf"):
            raise UserError(f"--{name.replace('_', '-')} must be 0 (greedy) or a number above, got {value:g}")


def one_of(known: Sequence[str], **values: str | None) -> None:
    """Raises UserError, naming the option, for a value that is not known; None is one that was not given."""
    for name, value in values.items():
        if value is not None and value not in known:
            raise UserError(f"--{name.replace('_', '-')} {value!r}; {did_you_mean(value, known)}")


def parse_json(text: str | None, option: str) -> dict:
    """A JSON object given on the command line; {} for None. Raises UserError for anything else."""
    import json

    try:
        found = json.loads(text) if text else {}
    except json.JSONDecodeError as error:
        raise UserError(f"{option} {text!r}: malformed JSON ({error.msg} at column {error.colno})") from error
    if not isinstance(found, dict):
        raise UserError(f"{option} {text!r}: expected a JSON object")
    return found


def cutoffs(n: int, at: Sequence[int] | None) -> list[int]:
    """The N of Pass@N: `at`, checked against n, or the paper's 1, 3, 5, 10, 20, 50, 100 as far as n goes, and n."""
    if at is None:
        return sorted({N for N in (1, 3, 5, 10, 20, 50, 100, 200, 500, 1000) if n >= N} | {n})
    if not at or min(at) < 1:
        raise UserError(f"--at: every N must be at least 1, got {', '.join(map(str, at)) or 'none'}")
    if max(at) > n:
        raise UserError(f"-n {n} is smaller than the largest N asked for, {max(at)}; draw at least -n {max(at)}")
    return sorted(set(at))
