"""The command line: parse, call, print. Everything heavy is imported by the command that needs it."""

import errno
import sys
from pathlib import Path
from typing import Annotated

import typer

from irlens.cli_engine import takes_engine_options
from irlens.errors import UserError
from irlens.settings import Index, Mine, PassK, Recall, Train

app = typer.Typer(
    name="irlens",
    help="Language-model alignment through the eyes of information retrieval: the LLM is a retriever, the reward model a "
    "reranker. Start with `irlens demo`.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)

Model = Annotated[str, typer.Option(help="A name (tiny, mathstral, …), a hub id or a folder.")]
Dataset = Annotated[
    str | None, typer.Option(help="A name (sums, gsm8k, facts, …), a file or a folder. Default: the model's own.")
]
Split = Annotated[
    str | None, typer.Option(help="The split of the data set; default test, or train for training material.")
]
Limit = Annotated[int | None, typer.Option(help="Use only the first so many topics.")]
Seed = Annotated[int, typer.Option(help="Seed of the draws, the lists and the bootstrap.")]
MaxTokens = Annotated[int | None, typer.Option(help="Longest response in tokens. Default: the model's own.")]
BatchSize = Annotated[
    int | None, typer.Option(help="Texts encoded at once; changes speed and memory, not the vectors.")
]
Out = Annotated[
    str | None, typer.Option(help="Output folder; the same command continues it. Default: under irlens-out/.")
]


def _numbers(text: str, option: str, kind: type = float) -> tuple:
    """Comma-separated numbers. Raises UserError for anything else."""
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError:
        what = "whole numbers" if kind is int else "numbers"
        raise UserError(f"{option} {text!r}: expected {what} separated by commas, such as 1,10") from None


@app.command()
@takes_engine_options
def passk(
    model: Model = PassK.model,
    dataset: Dataset = PassK.dataset,
    split: Split = PassK.split,
    limit: Limit = PassK.limit,
    n: Annotated[int, typer.Option("-n", "--draws", help="Draws per problem and temperature.")] = PassK.n,
    temperature: Annotated[str, typer.Option(help="Temperatures, separated by commas.")] = "0.1,0.2,0.5,0.7,1.0",
    at: Annotated[
        str | None, typer.Option(help="The N of Pass@N, separated by commas. Default: 1,3,5,10,… up to n.")
    ] = None,
    seed: Seed = PassK.seed,
    max_tokens: MaxTokens = PassK.max_tokens,
    out: Out = PassK.out,
    engine: dict | None = None,
) -> None:
    """Pass@N of a model per temperature: the LLM's Recall@N (Figure 2b).

    Example: `irlens passk --model mathstral --dataset gsm8k -n 100 --temperature 0.1,0.2,0.5,0.7,1.0`
    """
    from irlens import report, stages

    settings = PassK(
        model,
        dataset,
        split,
        limit,
        n,
        _numbers(temperature, "--temperature"),
        None if at is None else _numbers(at, "--at", int),
        seed,
        max_tokens,
        out,
        **engine,
    )
    folder, results = stages.passk(settings, report.say)
    report.curves(results, "Pass@N", "temperature")
    report.written(folder)


IndexType = Annotated[
    str | None,
    typer.Option("--index", help="FAISS factory string: Flat, HNSW32, IVF4096,PQ64 … Default: by corpus size."),
]
TrainSize = Annotated[int | None, typer.Option(help="Vectors that train the index. Default: 50 per cell.")]
QueryPrompt = Annotated[str | None, typer.Option(help="Text before every question. Default: the model's.")]
PassagePrompt = Annotated[str | None, typer.Option(help="Text before every passage. Default: the model's.")]
Dtype = Annotated[str, typer.Option(help="Precision of the encoder: float32, float16 or bfloat16.")]
Store = Annotated[str, typer.Option(help="Precision of the vectors on disk: float32 or float16.")]
ShardSize = Annotated[int, typer.Option(help="Passages in a file of vectors: what a kill can cost.")]
Processes = Annotated[int, typer.Option(help="Encoding processes on the CPU; several GPUs are used by themselves.")]


@app.command()
def index(
    retriever: Annotated[
        str, typer.Option(help="e5, e5-small, e5-large, e5-instruct, tiny-e5, a hub id or a folder.")
    ] = Index.retriever,
    dataset: Annotated[str, typer.Option(help="facts, nq, a BEIR folder, or an ir_datasets id.")] = Index.dataset,
    index_type: IndexType = Index.index,
    train_size: TrainSize = Index.train_size,
    query_prompt: QueryPrompt = Index.query_prompt,
    passage_prompt: PassagePrompt = Index.passage_prompt,
    dtype: Dtype = Index.dtype,
    store: Store = Index.store,
    shard_size: ShardSize = Index.shard_size,
    processes: Processes = Index.processes,
    batch_size: BatchSize = Index.batch_size,
    seed: Seed = Index.seed,
    out: Out = Index.out,
) -> None:
    """Encode a corpus into shards of vectors and build the index over them.

    Example: `irlens index --retriever e5 --dataset beir/nq --index HNSW32`
    """
    from irlens import report, stages

    settings = Index(
        retriever,
        dataset,
        index_type,
        train_size,
        query_prompt,
        passage_prompt,
        dtype,
        store,
        shard_size,
        processes,
        batch_size,
        seed,
        out,
    )
    folder, facts = stages.index(settings, report.say)
    report.indexed(facts)
    report.written(folder)


@app.command()
def recall(
    retriever: Annotated[
        str, typer.Option(help="bm25, e5, tiny-e5, a hub id, a folder; several separated by commas are compared.")
    ] = Recall.retriever,
    dataset: Annotated[str, typer.Option(help="facts, nq, a BEIR folder, or an ir_datasets id.")] = Recall.dataset,
    split: Split = Recall.split,
    limit: Limit = Recall.limit,
    at: Annotated[str, typer.Option(help="The N of Recall@N, separated by commas.")] = "1,5,10,20,50,100",
    index_type: IndexType = Recall.index,
    nprobe: Annotated[int | None, typer.Option(help="Cells of an IVF index that are searched.")] = Recall.nprobe,
    ef_search: Annotated[int | None, typer.Option(help="Breadth of the search in an HNSW index.")] = Recall.ef_search,
    refine: Annotated[
        int | None, typer.Option(help="Candidates per result of an approximate index that are scored exactly.")
    ] = Recall.refine,
    rerank: Annotated[
        str | None, typer.Option(help="Cross-encoder as the second stage, such as cross-encoder/ms-marco-MiniLM-L6-v2.")
    ] = Recall.rerank,
    rerank_depth: Annotated[int, typer.Option(help="Passages per question that it reads.")] = Recall.rerank_depth,
    train_size: TrainSize = Recall.train_size,
    query_prompt: QueryPrompt = Recall.query_prompt,
    passage_prompt: PassagePrompt = Recall.passage_prompt,
    dtype: Dtype = Recall.dtype,
    store: Store = Recall.store,
    shard_size: ShardSize = Recall.shard_size,
    processes: Processes = Recall.processes,
    batch_size: BatchSize = Recall.batch_size,
    seed: Seed = Recall.seed,
    index_folder: Annotated[
        str | None, typer.Option(help="Folder of `irlens index`. Default: index-RETRIEVER-DATASET beside --out.")
    ] = Recall.index_folder,
    out: Out = Recall.out,
) -> None:
    """Recall@N of retrievers, by gold passage and by answer string (Figure 2a).

    Example: `irlens recall --retriever bm25,e5 --dataset path/to/beir/nq`
    """
    from irlens import report, stages

    settings = Recall(
        retriever,
        dataset,
        split,
        limit,
        _numbers(at, "--at", int),
        index_type,
        nprobe,
        ef_search,
        refine,
        rerank,
        rerank_depth,
        train_size,
        query_prompt,
        passage_prompt,
        dtype,
        store,
        shard_size,
        processes,
        batch_size,
        seed,
        index_folder,
        out,
    )
    folder, results = stages.recall(settings, report.say)
    report.curves(results, "Recall@N (DPR's: a hit among the first N, ir_measures' Success@N)", "retriever")
    report.compared(folder / "tests.csv")
    report.written(folder)


@app.command("mine-negatives")
@takes_engine_options
def mine_negatives(
    model: Model = Mine.model,
    dataset: Dataset = Mine.dataset,
    split: Split = Mine.split,
    limit: Limit = Mine.limit,
    tiers: Annotated[str, typer.Option(help="Tiers of hardness, separated by commas.")] = Mine.tiers,
    positives: Annotated[
        str, typer.Option(help="The positive of a list: `gold` solution or `correct` draw.")
    ] = Mine.positives,
    per_tier: Annotated[int, typer.Option(help="Negatives per prompt and tier.")] = Mine.per_tier,
    n: Annotated[int, typer.Option("-n", "--draws", help="Draws per prompt and temperature.")] = Mine.n,
    hard_temperature: Annotated[
        float, typer.Option(help="Temperature of the tiers easy and hard.")
    ] = Mine.hard_temperature,
    hardest_temperature: Annotated[
        float, typer.Option(help="Temperature of the tier hardest.")
    ] = Mine.hardest_temperature,
    unrelated: Annotated[
        str | None, typer.Option(help="Data set whose prompts give the tier easiest.")
    ] = Mine.unrelated,
    seed: Seed = Mine.seed,
    max_tokens: MaxTokens = Mine.max_tokens,
    out: Out = Mine.out,
    engine: dict | None = None,
) -> None:
    """Mine negatives in four tiers of hardness (Figure 3a): lists of one positive and its negatives.

    Example: `irlens mine-negatives --model mathstral --dataset gsm8k --tiers easiest,easy,hard,hardest`
    """
    from irlens import report, stages

    settings = Mine(
        model,
        dataset,
        split,
        limit,
        tiers,
        positives,
        per_tier,
        n,
        hard_temperature,
        hardest_temperature,
        unrelated,
        seed,
        max_tokens,
        out,
        **engine,
    )
    folder, lists, tally = stages.mine_negatives(settings, report.say)
    report.mined(lists, tally)
    report.written(folder)


@app.command()
@takes_engine_options
def train(
    objective: Annotated[str, typer.Option(help="pairwise, contrastive, lambdarank or listmle.")] = Train.objective,
    model: Model = Train.model,
    dataset: Dataset = Train.dataset,
    split: Split = Train.split,
    iterations: Annotated[int, typer.Option(help="LarPO iterations: sample, judge, train.")] = Train.iterations,
    prompts: Annotated[int, typer.Option(help="Prompts per iteration.")] = Train.prompts,
    n: Annotated[int, typer.Option("-n", "--draws", help="Draws per prompt.")] = Train.n,
    temperature: Annotated[float, typer.Option(help="Temperature of the draws.")] = Train.temperature,
    positives: Annotated[
        int | None, typer.Option(help="Positives per list. Default: the paper's for the objective.")
    ] = None,
    negatives: Annotated[
        int | None, typer.Option(help="Negatives per list. Default: the paper's for the objective.")
    ] = None,
    lists: Annotated[int, typer.Option(help="Lists per prompt.")] = Train.lists,
    beta: Annotated[float | None, typer.Option(help="β of γ = β·(log π − log π_ref). Default: the model's.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Default: the model's.")] = None,
    epochs: Annotated[int, typer.Option(help="Epochs per iteration.")] = Train.epochs,
    batch_lists: Annotated[int, typer.Option(help="Lists per optimiser step.")] = Train.batch_lists,
    lists_at_once: Annotated[
        int | None,
        typer.Option(help="Lists per pass; the rest of a step is accumulated. Default: by the model's size."),
    ] = None,
    eval_split: Annotated[str | None, typer.Option(help="Held-out split; default validation, else test.")] = None,
    eval_limit: Annotated[int, typer.Option(help="Held-out problems.")] = Train.eval_limit,
    eval_n: Annotated[int, typer.Option(help="Draws per held-out problem.")] = Train.eval_n,
    eval_temperature: Annotated[
        float, typer.Option(help="Temperature of the held-out draws.")
    ] = Train.eval_temperature,
    seed: Seed = Train.seed,
    max_tokens: MaxTokens = Train.max_tokens,
    out: Out = Train.out,
    engine: dict | None = None,
) -> None:
    """LarPO (Algorithm 1): sample, judge, rank, train; measured on held-out problems after each iteration.

    Example: `irlens train --objective contrastive --model mathstral --dataset gsm8k --iterations 3`
    """
    from irlens import report, stages

    settings = Train(
        objective,
        model,
        dataset,
        split,
        iterations,
        prompts,
        n,
        temperature,
        positives,
        negatives,
        lists,
        beta,
        learning_rate,
        epochs,
        batch_lists,
        lists_at_once,
        eval_split,
        eval_limit,
        eval_n,
        eval_temperature,
        seed,
        max_tokens,
        out,
        **engine,
    )
    folder, results, tests = stages.train(settings, report.say)
    report.trained(results, tests)
    report.written(folder)


LATEST = Path("irlens-out/passk-tiny-sums")  # what `irlens passk` writes by default


@app.command()
def evaluate(
    run: Annotated[
        Path, typer.Argument(help="A run: Parquet, a TREC file, or the folder of a passk or recall.")
    ] = LATEST,
    qrels: Annotated[Path, typer.Argument(help="Qrels: Parquet, BEIR .tsv, a TREC file, or such a folder.")] = LATEST,
    measures: Annotated[
        str, typer.Argument(help="Measures in ir_measures' syntax, and Pass@N.")
    ] = "Success@1 Success@10 nDCG@10 RR",
    out: Out = None,
) -> None:
    """Evaluate a run with any measure of ir_measures, each with a bootstrap interval over queries.

    Example: `irlens evaluate run.parquet qrels.parquet 'Success@1 Pass@10 nDCG@10 RR'`
    """
    from irlens import report, stages

    folder, results = stages.evaluate(run, qrels, measures, out)
    report.results(results)
    report.written(folder)


@app.command()
def plot(
    table: Annotated[
        Path, typer.Argument(help="A CSV that irlens wrote beside a figure (columns curve, x, value, low, high).")
    ] = LATEST / "passk.csv",
    title: Annotated[str | None, typer.Option(help="Title over the figure.")] = None,
    x_label: Annotated[str, typer.Option(help="Label of the x axis.")] = "N",
    y_label: Annotated[str, typer.Option(help="Label of the y axis.")] = "value",
    log_x: Annotated[bool, typer.Option(help="Logarithmic x axis.")] = False,
    style: Annotated[str, typer.Option(help="screen or paper.")] = "screen",
    out: Out = None,
) -> None:
    """Draw a figure (PNG and PDF) from its table.

    Example: `irlens plot irlens-out/passk-tiny-sums/passk.csv --log-x --style paper --out fig2b`
    """
    from irlens import report, stages

    folder, files = stages.plot(table, title, x_label, y_label, log_x, style, out)
    report.say("drew " + ", ".join(path.name for path in files))
    report.written(folder)


@app.command()
def reproduce(
    recipe: Annotated[str, typer.Argument(help="A recipe's name, such as fig2b, or a TOML file.")],
    preset: Annotated[
        str, typer.Option(help="tiny (embedded default, CPU) or paper (the paper's models and data).")
    ] = "tiny",
    out: Out = None,
) -> None:
    """Reproduce a figure of the paper from its recipe.

    Example: `irlens reproduce fig2b --preset tiny`
    """
    from irlens import recipe as recipes
    from irlens import report

    report.written(recipes.run(recipes.load(recipe, preset), Path(out) if out else None, report.say))


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Output folder; the same command continues it.")] = Path("irlens-out/demo"),
    seed: Seed = 0,
) -> None:
    """The whole loop on the embedded default: retrieve, rerank, mine, train, measure. About three minutes on two cores.

    Example: `irlens demo`
    """
    from irlens import demo as whole_loop

    whole_loop.run(out, seed)


@app.command()
def doctor() -> None:
    """Versions, devices, and which optional parts are there or missing for what.

    Example: `irlens doctor`
    """
    from irlens import report

    report.doctor()


def main() -> None:
    """The entry point: a user's mistake is one line on standard error and exit code 2."""
    try:
        code = app(standalone_mode=False)
    except UserError as error:
        _fail(str(error))
    except typer.Exit as stop:
        code = stop.exit_code
    except (KeyboardInterrupt, typer.Abort):
        _fail("interrupted; the same command continues", code=130)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        _fail(f"the disk is full ({error}); what was written is kept: free some space, and the same command continues")
    except Exception as error:
        if not hasattr(error, "format_message"):  # a usage error of the command-line parser has it
            raise
        _fail(error.format_message())
    sys.exit(code or 0)


def _fail(message: str, code: int = 2) -> None:
    print("irlens: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(code)
