"""What each stage can be told: frozen settings with their defaults, shared by commands, recipes and the demo.

An option that takes several values separated by commas has a singular name: --temperature, --retriever, --tier.
"""

from __future__ import annotations

from dataclasses import dataclass

from irlens.base import seeds
from irlens.base.errors import UserError
from irlens.base.options import Default, argument, option
from irlens.rerank.options import VERIFIERS, ScoringOptions, _thought, columns
from irlens.retrieve.options import EncoderOptions, EngineOptions
from irlens.train.options import LarpoOptions


def _model():
    return option("tiny", "tiny, mathstral, a hub id or a folder.", panel="Data")


def _dataset():
    return option(
        None,
        "sums, …, a file, a folder, owner/name or module:load. Default: the model's own.",
        panel="Data",
    )


def _columns():
    return columns("As in prompt=instruction,answer=output.")


def _verifier():
    return option(None, "gsm8k, math, nq-exact, … Default: the data set's.", panel="Judging")


def _reward(does: str, more: str = ""):
    names = "fsfairx, pairrm, a hub id, a folder or module:function."
    return option(None, f"{does}{names} {more}".rstrip(), panel="Judging")


def _split():
    return option(None, "Default: test; train for training material.", panel="Data")


def _limit(default: int | None = None):
    return option(default, "Only the first so many topics.", panel="Data", least=1)


def _draws(default: int):
    return option(default, "Draws per prompt and temperature.", "-n", panel="Draws", least=1)


def _seed():
    return option(0, "Seed of all that is random, from 0.", panel="Output")


def _max_tokens():
    return option(None, "Longest response. Default: the model's own.", panel="Draws", least=1)


def _max_prompt_length():
    return option(
        None,
        "Tokens; longer prompts are left out. 0: none. Default: what leaves room (chat data: 1000).",
        panel="Data",
    )


def _out():
    return option(None, "Output folder; the same command continues it.", panel="Output", free=True)


def _store():
    return option(
        None,
        "Folder of draws and scores that other commands find; none: without. Default: .irlens-store beside --out.",
        panel="Output",
        free=True,
    )


class Seeded:
    """Settings with a `seed`. Raises UserError for one that has no random numbers."""

    def __post_init__(self):
        seeds.check(self.seed)

    def seed_of(self, purpose: str, iteration: int = 0) -> int:
        """Where the random numbers of a purpose begin (`seeds.derive`)."""
        return seeds.derive(self.seed, iteration, purpose)


@dataclass(frozen=True)
class Sample(Seeded, EngineOptions):
    """A model's draws of any prompts, with or without answers."""

    model: str = _model()
    dataset: str | None = _dataset()
    columns: str | None = _columns()
    split: str | None = _split()
    limit: int | None = _limit()
    n: int = _draws(16)
    temperature: tuple[float, ...] = option((1.0,), "Temperatures, by commas; 0 is greedy.", panel="Draws", least=0)
    seed: int = _seed()
    max_tokens: int | None = _max_tokens()
    thought: str | None = _thought()
    max_prompt_length: int | None = _max_prompt_length()
    out: str | None = _out()
    store: str | None = _store()


@dataclass(frozen=True)
class PassK(Seeded, EngineOptions):
    """Pass@N of a model's draws, per temperature."""

    model: str = _model()
    dataset: str | None = _dataset()
    columns: str | None = _columns()
    split: str | None = _split()
    limit: int | None = _limit()
    n: int = _draws(100)
    temperature: tuple[float, ...] = option(
        (0.1, 0.2, 0.5, 0.7, 1.0), "Temperatures, by commas; 0 is greedy.", panel="Draws", least=0
    )
    at: tuple[int, ...] | None = option(
        None, "The N of Pass@N. Default: 1,3,5,10,… up to -n.", panel="Measuring", free=True
    )
    verifier: str | None = _verifier()
    seed: int = _seed()
    max_tokens: int | None = _max_tokens()
    thought: str | None = _thought()
    max_prompt_length: int | None = _max_prompt_length()
    out: str | None = _out()
    store: str | None = _store()


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
        "bm25,tiny-e5", "bm25, e5, tiny-e5, a hub id, a folder; several are compared.", panel="Data"
    )
    dataset: str = option("facts", "facts, nq, a BEIR folder, or an ir_datasets id.", panel="Data")
    split: str | None = option(None, "Default: test.", panel="Data")
    limit: int | None = _limit()
    at: tuple[int, ...] = option((1, 5, 10, 20, 50, 100), "The N of Recall@N.", panel="Measuring", least=1)
    nprobe: int | None = option(None, "Cells of an IVF index that are searched.", panel="Index")
    ef_search: int | None = option(None, "Breadth of the search in an HNSW index.", panel="Index")
    refine: int | None = option(
        None, "Candidates per result that are scored exactly, where the index approximates.", panel="Index"
    )
    reranker: str | None = option(
        None, "Cross-encoder after it, such as cross-encoder/ms-marco-MiniLM-L6-v2.", panel="Judging"
    )
    rerank_depth: int = option(100, "Passages per question that it reads.", panel="Judging", least=1)
    seed: int = _seed()
    index_folder: str | None = option(
        None, "Of `irlens index`. Default: index-RETRIEVER-DATASET beside --out.", panel="Output", free=True
    )
    out: str | None = _out()


@dataclass(frozen=True)
class Mine(Seeded, EngineOptions):
    """Lists with negatives in tiers of hardness."""

    model: str = _model()
    dataset: str | None = _dataset()
    columns: str | None = _columns()
    split: str | None = _split()
    limit: int | None = _limit(500)
    tier: str = option(
        "easiest,easy,hard,hardest",
        "Some of easiest, easy, hard, hardest, top-ranked, near-miss, margin.",
        panel="Lists",
    )
    positives_from: str = option("gold", "gold (solution), own (draw), or both.", panel="Lists")
    per_tier: int = option(1, "Negatives per prompt and tier.", panel="Lists", least=1)
    n: int = _draws(8)
    temperature: tuple[float, ...] = option(
        (1.0, 0.7), "High (easy, hard), then low (hardest).", panel="Draws", least=0
    )
    run: str | None = option(
        None, "Draws to mine instead: a run, or the folder of one. Its rewards count too.", panel="Draws"
    )
    unrelated: str | None = option(None, "Data set for the tier easiest.", panel="Data")
    related: str = option(
        "random", "Prompts for the tier easy: random, or nearest by bm25 or an encoder.", panel="Lists"
    )
    verifier: str | None = _verifier()
    reward: str | None = _reward("Scores the draws: ", "For near-miss, margin, and positives where nothing verifies.")
    reward_run: str | None = option(
        None, "The draws as `irlens rerank` scored them: for near-miss, margin and gaps.", panel="Judging"
    )
    margin: float = option(0.0, "Tier margin: below the positive's score by this.", panel="Lists")
    percentage: float | None = option(None, "The same as its share, such as 0.95; rewards only.", panel="Lists")
    allow_reuse: bool = option(False, "A response may serve several prompts.", panel="Lists")
    text_threshold: float = option(
        1.0, "Similarity to a positive over words that makes a false negative.", panel="False negatives"
    )
    encoder: str | None = option(None, "tiny-e5, e5, …: similarity by embedding too.", panel="False negatives")
    embedding_threshold: float | None = option(
        None, "Cosine that makes a false negative. Default: 0.95; with a verifier none.", panel="False negatives"
    )
    reward_margin: float | None = option(
        None,
        "A reward above the positive's less this makes one. Default: 0; with a verifier none.",
        panel="False negatives",
    )
    hardness: bool = option(True, "Report how hard each tier is.", panel="Measuring")
    seed: int = _seed()
    max_tokens: int | None = _max_tokens()
    thought: str | None = _thought()
    max_prompt_length: int | None = _max_prompt_length()
    out: str | None = _out()
    store: str | None = _store()


@dataclass(frozen=True)
class Train(Seeded, LarpoOptions, EngineOptions):
    """LarPO iterations, and Pass@1 and Pass@N on held-out problems before, between and after."""

    model: str = _model()
    dataset: str | None = _dataset()
    columns: str | None = _columns()
    split: str | None = _split()
    verifier: str | None = _verifier()
    reward: str | None = _reward("Judges in its place: ")
    eval_reward: str | None = option(None, "Another one for held-out draws.", panel="Judging")
    list_file: str | None = option(
        None, "Train on these: pairs, scored, irlens' own.", "--lists", panel="Lists", first=True
    )
    export: str | None = option(None, "trl, kto, sentence-transformers: lists, runs.", panel="Output", free=True)
    device_memory: str | None = option(None, "To plan for: 80GiB. Default: of the GPUs.", panel="Trainer", free=True)
    patience: int | None = option(None, "Stop after so many iterations without a gain.", panel="Trainer")
    eval_split: str | None = option(None, "Default: validation; test chooses nothing.", panel="Measuring")
    eval_limit: int = option(Default(200), "Held-out problems in between.", panel="Measuring", least=1)
    eval_n: int = option(16, "Draws per held-out problem.", panel="Measuring", least=1)
    eval_every: int = option(1, "Iterations between these; the last always.", panel="Measuring", least=1)
    eval_temperature: tuple[float, ...] = option(
        (1.0,), "Of these draws; the first chooses.", panel="Measuring", least=0
    )
    test_limit: int = option(Default(500), "Test problems at the end; 0: none.", panel="Measuring")
    max_tokens: int | None = _max_tokens()
    thought: str | None = _thought()
    max_prompt_length: int | None = _max_prompt_length()
    out: str | None = _out()
    store: str | None = _store()


PASSK_OUT = "irlens-out/passk-tiny-sums"  # what `irlens passk` writes by default


@dataclass(frozen=True)
class Rerank(Seeded, ScoringOptions):
    """A run in a new order."""

    run: str = argument(PASSK_OUT, "A run with texts: Parquet, the folder of a sample or passk, or a file of lists.")
    reranker: str = option(
        "majority",
        "majority, likelihood, mean-likelihood, length, random, oracle, fsfairx, pairrm, reward:MODEL, "
        "cross-encoder:MODEL, judge, judge:pointwise (at a server), judge:MODEL (of this machine), vote:RERANKER (weighted "
        "by its scores), a hub id or folder of a reward model, or module:function.",
        panel="Judging",
        first=True,
    )
    qrels: str | None = option(
        None, "For the oracle, and to say what the first is worth. Default: the run's.", panel="Judging"
    )
    seed: int = _seed()
    out: str | None = _out()
    store: str | None = _store()


@dataclass(frozen=True)
class Verify(Seeded):
    """A run judged right or wrong: qrels."""

    run: str = argument(PASSK_OUT, "A run with texts: Parquet, or the folder of a passk or a rerank.")
    verifier: str | None = option(None, f"{VERIFIERS}. Default: the data set's.", panel="Judging")
    dataset: str | None = option(
        None, "Where the gold answers come from. Default: what the run's folder says.", panel="Data"
    )
    columns: str | None = columns()
    split: str | None = option(None, "Default: what the run's folder says.", panel="Data")
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
    reranker: str = option(
        "majority,likelihood,mean-likelihood,length",
        "See `irlens rerank --help`; score: the run's own. oracle, random and random per text are always there. "
        "Default: those of these that the run allows.",
        panel="Judging",
        first=True,
    )
    temperature: tuple[float, ...] | None = option(
        None, "Only the draws at these temperatures. Default: all, apart.", panel="Draws"
    )
    at: tuple[int, ...] | None = option(None, "The N. Default: 1,3,5,10,… up to the candidates.", panel="Measuring")
    right_from: float | None = option(
        None, "Least grade that is right, for RR and AUC. Default: 1; of fractions, above one half.", panel="Measuring"
    )
    seed: int = _seed()
    out: str | None = _out()
    store: str | None = _store()


@dataclass(frozen=True)
class Evaluate:
    """A run measured against qrels."""

    run: str = argument(PASSK_OUT, "A run: Parquet, a TREC file, or the folder of a passk or recall.")
    qrels: str = argument(PASSK_OUT, "Qrels: Parquet, BEIR .tsv, a TREC file, or such a folder.")
    measures: str = argument("Success@1 Success@10 nDCG@10 RR", "In ir_measures' syntax, and Pass@N.")
    complete: bool = option(True, "Judged queries that the run lacks count as 0 (trec_eval -c).", panel="Measuring")
    out: str | None = _out()


@dataclass(frozen=True)
class Temperatures:
    """Draws at several temperatures, and which of them make lists."""

    run: str = argument(PASSK_OUT, "Draws at several temperatures: a passk folder, or Parquet.")
    qrels: str = argument(PASSK_OUT, "Their judgements: such a folder, or Parquet.")
    least: float = option(0.5, "Share of prompts that must give a list.", panel="Measuring")
    out: str | None = _out()


def _style():
    return option("screen", "screen or paper.", panel="Figure")


@dataclass(frozen=True)
class Plot:
    """A table that irlens wrote, and how its figure looks."""

    table: str = argument(
        f"{PASSK_OUT}/passk.csv", "A CSV that irlens wrote beside a figure (columns curve, x, value, low, high)."
    )
    title: str | None = option(None, "Title over the figure.", panel="Figure")
    x_label: str = option("N", "Label of the x axis.", panel="Figure")
    y_label: str = option("value", "Label of the y axis.", panel="Figure")
    log_x: bool = option(False, "Logarithmic x axis.", panel="Figure")
    style: str = _style()
    out: str | None = _out()


@dataclass(frozen=True)
class Store:
    """A store of draws and scores, and what is to be done with it."""

    folder: str | None = argument(None, "Its folder. Default: as IRLENS_STORE has it, else irlens-out/.irlens-store.")
    prune: bool = option(False, "Drop what --older-than and --max-size name, the longest unused first.", panel="Output")
    older_than: float | None = option(None, "Days since it was last used.", panel="Output")
    max_size: str | None = option(None, "What may be left, such as 10GB.", panel="Output")
    check: bool = option(False, "Read every file; one that has changed is dropped.", panel="Output")


@dataclass(frozen=True)
class Demo:
    """The whole loop."""

    seed: int = _seed()
    out: str = option("irlens-out/demo", "Output folder; the same command continues it.", panel="Output", free=True)


STAGES = {  # command → its settings
    "sample": Sample,
    "passk": PassK,
    "index": Index,
    "recall": Recall,
    "mine-negatives": Mine,
    "train": Train,
    "rerank": Rerank,
    "verify": Verify,
    "best-of-n": BestOfN,
}


# -- checks --------------------------------------------------------------------------------------------------------


def heat(**values: float | None) -> None:
    """Raises UserError for a temperature that is not a number of 0 (greedy) or above; None is one that was not given."""
    for name, value in values.items():
        if value is not None and not 0 <= value < float("inf"):
            raise UserError(f"--{name.replace('_', '-')} must be 0 (greedy) or a number above, got {value:g}")
