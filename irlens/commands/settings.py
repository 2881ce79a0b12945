"""What each stage can be told: frozen settings with their defaults, shared by commands, recipes and the demo."""

from __future__ import annotations

from dataclasses import dataclass

from irlens.base import seeds
from irlens.base.errors import UserError
from irlens.base.options import argument, option
from irlens.rerank.options import VERIFIERS, ScoringOptions, _thought
from irlens.retrieve.options import EncoderOptions, EngineOptions
from irlens.train.options import LarpoOptions


def _model():
    return option("tiny", "A name (tiny, mathstral, …), a hub id or a folder.", panel="Data")


def _dataset():
    return option(
        None, "A name (sums, gsm8k, facts, …), a file, a folder or module:load. Default: the model's own.", panel="Data"
    )


def _split():
    return option(None, "The split of the data set; default test, or train for training material.", panel="Data")


def _limit(default: int | None = None):
    return option(default, "Use only the first so many topics.", panel="Data")


def _draws(default: int):
    return option(default, "Draws per prompt and temperature.", "-n", "--draws", panel="Draws")


def _seed():
    return option(0, "Seed of the draws, the lists, the training and the tests, from 0.", panel="Output")


def _max_tokens():
    return option(None, "Longest response in tokens. Default: the model's own.", panel="Draws")


def _max_prompt_length():
    return option(
        None,
        "Longest prompt in tokens; longer ones are left out, and counted. 0 leaves none out. Default: what leaves room for "
        "the response, and 1000 for chat data.",
        panel="Data",
    )


def _out():
    return option(
        None, "Output folder; the same command continues it. Default: under irlens-out/.", panel="Output", free=True
    )


class Seeded:
    """Settings with a `seed`. Raises UserError for one that has no random numbers."""

    def __post_init__(self):
        seeds.check(self.seed)

    def seed_of(self, purpose: str, iteration: int = 0) -> int:
        """Where the random numbers of a purpose begin (`seeds.derive`)."""
        return seeds.derive(self.seed, iteration, purpose)


@dataclass(frozen=True)
class PassK(Seeded, EngineOptions):
    """Pass@N of a model's draws, per temperature."""

    model: str = _model()
    dataset: str | None = _dataset()
    split: str | None = _split()
    limit: int | None = _limit()
    n: int = _draws(100)
    temperature: tuple[float, ...] = option(
        (0.1, 0.2, 0.5, 0.7, 1.0), "Temperatures, separated by commas; 0 is greedy.", panel="Draws"
    )
    at: tuple[int, ...] | None = option(
        None, "The N of Pass@N, separated by commas. Default: 1,3,5,10,… up to n.", panel="Measuring"
    )
    seed: int = _seed()
    max_tokens: int | None = _max_tokens()
    thought: str | None = _thought()
    max_prompt_length: int | None = _max_prompt_length()
    out: str | None = _out()


@dataclass(frozen=True)
class Index(Seeded, EncoderOptions):
    """A corpus encoded and indexed."""

    retriever: str = option(
        "tiny-e5", "e5, e5-small, e5-large, e5-instruct, tiny-e5, a hub id or a folder.", panel="Data"
    )
    dataset: str = option("facts", "facts, nq, a BEIR folder, or an ir_datasets id.", panel="Data")
    seed: int = _seed()
    out: str | None = _out()


@dataclass(frozen=True)
class Recall(Seeded, EncoderOptions):
    """Recall@N of one or more retrievers on a corpus."""

    retriever: str = option(
        "bm25,tiny-e5", "bm25, e5, tiny-e5, a hub id, a folder; several separated by commas are compared.", panel="Data"
    )
    dataset: str = option("facts", "facts, nq, a BEIR folder, or an ir_datasets id.", panel="Data")
    split: str | None = _split()
    limit: int | None = _limit()
    at: tuple[int, ...] = option((1, 5, 10, 20, 50, 100), "The N of Recall@N, separated by commas.", panel="Measuring")
    nprobe: int | None = option(None, "Cells of an IVF index that are searched.", panel="Index")
    ef_search: int | None = option(None, "Breadth of the search in an HNSW index.", panel="Index")
    refine: int | None = option(
        None, "Candidates per result of an approximate index that are scored exactly.", panel="Index"
    )
    rerank: str | None = option(
        None, "Cross-encoder as the second stage, such as cross-encoder/ms-marco-MiniLM-L6-v2.", panel="Index"
    )
    rerank_depth: int = option(100, "Passages per question that it reads.", panel="Index")
    seed: int = _seed()
    index_folder: str | None = option(
        None, "Folder of `irlens index`. Default: index-RETRIEVER-DATASET beside --out.", panel="Index", free=True
    )
    out: str | None = _out()


@dataclass(frozen=True)
class Mine(Seeded, EngineOptions):
    """Lists with negatives in tiers of hardness."""

    model: str = _model()
    dataset: str | None = _dataset()
    split: str | None = _split()
    limit: int | None = _limit(500)
    tiers: str = option(
        "easiest,easy,hard,hardest",
        "Tiers: easiest, easy, hard, hardest, top-ranked, near-miss, margin.",
        panel="Lists",
    )
    positives: str = option(
        "gold", "The positives of a list: the `gold` solution, a `correct` draw, or `both`.", panel="Lists"
    )
    per_tier: int = option(1, "Negatives per prompt and tier.", panel="Lists")
    n: int = _draws(8)
    hard_temperature: float = option(1.0, "Temperature of the tiers easy and hard.", panel="Draws")
    hardest_temperature: float = option(0.7, "Temperature of the tier hardest.", panel="Draws")
    run: str | None = option(
        None, "A run with these draws (file, or folder of passk) to mine instead of drawing.", panel="Draws"
    )
    unrelated: str | None = option(None, "Data set whose prompts give the tier easiest.", panel="Data")
    related: str = option(
        "random", "Which other prompts give the tier easy: random, or nearest by bm25 or an encoder.", panel="Lists"
    )
    reward_run: str | None = option(
        None, "The draws as `irlens rerank` scored them: for near-miss, margin and gaps.", panel="Judging"
    )
    margin: float = option(
        0.0, "Tier margin: how far below the positive's score (reward; else nats of log-probability).", panel="Lists"
    )
    percentage: float | None = option(
        None, "Tier margin by share of the positive's score, such as 0.95; rewards only.", panel="Lists"
    )
    allow_reuse: bool = option(False, "One response may be a negative of several prompts.", panel="Lists")
    text_threshold: float = option(
        1.0, "Similarity to a positive over words that makes a false negative; 1: same words.", panel="Lists"
    )
    encoder: str | None = option(
        None, "An encoder (tiny-e5, e5, …): similarity of negatives and positives by embedding.", panel="Lists"
    )
    embedding_threshold: float | None = option(
        None,
        "Cosine to a positive that makes a false negative. Default: 0.95, or none where a verifier knows better.",
        panel="Lists",
    )
    reward_margin: float | None = option(
        None,
        "A reward above the positive's less this makes a false negative. Default: 0 without a verifier, else none.",
        panel="Lists",
    )
    hardness: bool = option(
        True, "Report how hard each tier is, log-probabilities under the policy included.", panel="Measuring"
    )
    seed: int = _seed()
    max_tokens: int | None = _max_tokens()
    thought: str | None = _thought()
    max_prompt_length: int | None = _max_prompt_length()
    out: str | None = _out()


@dataclass(frozen=True)
class Train(Seeded, LarpoOptions, EngineOptions):
    """LarPO iterations, and Pass@1 and Pass@N on held-out problems before, between and after."""

    model: str = _model()
    dataset: str | None = _dataset()
    split: str | None = _split()
    reward: str | None = option(
        None,
        "A reward model that judges draws in the verifier's place: fsfairx, pairrm, a hub id or folder of one.",
        panel="Judging",
    )
    eval_reward: str | None = option(
        None, "Another one for held-out draws. Default: the one that judges.", panel="Judging"
    )
    patience: int | None = option(
        None, "Iterations without a better validation value before it stops.", panel="Trainer"
    )
    eval_split: str | None = option(
        None,
        "Held-out split in between; test chooses nothing. Default: validation, else out of training.",
        panel="Measuring",
    )
    eval_limit: int = option(200, "Held-out problems in between.", panel="Measuring")
    eval_n: int = option(16, "Draws per held-out problem.", panel="Measuring")
    eval_temperature: tuple[float, ...] = option(
        (1.0,), "Temperatures of the held-out draws; the first one chooses.", panel="Measuring"
    )
    test_limit: int = option(
        500, "Test problems at the end, for the start and the chosen policy; 0 for none.", panel="Measuring"
    )
    max_tokens: int | None = _max_tokens()
    thought: str | None = _thought()
    max_prompt_length: int | None = _max_prompt_length()
    out: str | None = _out()


PASSK_OUT = "irlens-out/passk-tiny-sums"  # what `irlens passk` writes by default


@dataclass(frozen=True)
class Rerank(Seeded, ScoringOptions):
    """A run in a new order."""

    run: str = argument(PASSK_OUT, "A run with texts: Parquet, the folder of a passk, or a file of lists.")
    reranker: str = option(
        "majority",
        "majority, likelihood, mean-likelihood, length, random, oracle, fsfairx, pairrm, reward:MODEL, "
        "cross-encoder:MODEL, judge, judge:pointwise, vote:RERANKER (votes weighted by its scores), a hub id or "
        "folder of a reward model, or module:function.",
        panel="Judging",
    )
    qrels: str | None = option(
        None, "Qrels, for the oracle and to say what the first is worth. Default: the run's.", panel="Judging"
    )
    seed: int = _seed()
    out: str | None = _out()


@dataclass(frozen=True)
class Verify(Seeded):
    """A run judged right or wrong: qrels."""

    run: str = argument(PASSK_OUT, "A run with texts: Parquet, or the folder of a passk or a rerank.")
    verifier: str | None = option(None, f"{VERIFIERS}. Default: the data set's.", panel="Data")
    dataset: str | None = option(
        None, "Where the gold answers come from. Default: what the run's folder says.", panel="Data"
    )
    split: str | None = option(None, "The split of the data set. Default: what the run's folder says.", panel="Data")
    judge_unfinished: bool = option(
        False, "Judge responses that never finished too; they are wrong otherwise.", panel="Judging"
    )
    thought: str | None = _thought()
    seed: int = _seed()
    out: str | None = _out()


@dataclass(frozen=True)
class BestOfN(Seeded, ScoringOptions):
    """What rerankers pick among N candidates, and how well they rank all of them."""

    run: str = argument(PASSK_OUT, "A run: Parquet, the folder of a passk or a rerank, or a file of graded lists.")
    qrels: str | None = argument(None, "Qrels: Parquet, BEIR .tsv, TREC, or such a folder. Default: the run's own.")
    rerankers: str = option(
        "majority,likelihood,mean-likelihood,length",
        "Rerankers (see `irlens rerank --help`; score: the run's own), separated by commas. oracle and random are "
        "always there. Default: those of these that the run allows.",
        panel="Judging",
    )
    temperature: tuple[float, ...] | None = option(
        None, "Only the draws at these temperatures. Default: all, apart.", panel="Draws"
    )
    at: tuple[int, ...] | None = option(
        None, "The N, separated by commas. Default: 1,3,5,10,… up to the candidates.", panel="Measuring"
    )
    right_from: float | None = option(
        None,
        "Least grade that is right, for RR and AUC. Default: 1; of fractional grades, above one half.",
        panel="Measuring",
    )
    seed: int = _seed()
    out: str | None = _out()


# -- checks --------------------------------------------------------------------------------------------------------


def heat(**values: float | None) -> None:
    """Raises UserError for a temperature that is not a number of 0 (greedy) or above; None is one that was not given."""
    for name, value in values.items():
        if value is not None and not 0 <= value < float("inf"):
            raise UserError(f"--{name.replace('_', '-')} must be 0 (greedy) or a number above, got {value:g}")
