"""The command line: parse, call, print. Everything heavy is imported by the command that needs it."""

import errno
import sys
from pathlib import Path
from typing import Annotated

import typer

from irlens.base.errors import UserError
from irlens.cli.options import numbers, takes
from irlens.commands.settings import BestOfN, Index, Mine, PassK, Recall, Rerank, Train, Verify

app = typer.Typer(
    name="irlens",
    help="Language-model alignment through the eyes of information retrieval: the LLM is a retriever, the reward model a "
    "reranker. Start with `irlens demo`.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)

INTERRUPTED = 130  # the exit code of a program that Ctrl-C ended

Out = Annotated[
    str | None, typer.Option(help="Output folder; the same command continues it. Default: under irlens-out/.")
]


@app.command()
@takes(PassK)
def passk(settings: PassK) -> None:
    """Pass@N of a model per temperature: the LLM's Recall@N (Figure 2b).

    Example: `irlens passk --model mathstral --dataset gsm8k -n 100 --temperature 0.1,0.2,0.5,0.7,1.0`
    """
    from irlens.cli import report
    from irlens.commands.passk import passk as command

    folder, results = command(settings, report.say)
    report.curves(results, "Pass@N", "temperature")
    report.written(folder)


@app.command()
@takes(Index)
def index(settings: Index) -> None:
    """Encode a corpus into shards of vectors and build the index over them.

    Example: `irlens index --retriever e5 --dataset beir/nq --index HNSW32`
    """
    from irlens.cli import report
    from irlens.commands.index import index as command

    folder, facts = command(settings, report.say)
    report.indexed(facts)
    report.written(folder)


@app.command()
@takes(Recall)
def recall(settings: Recall) -> None:
    """Recall@N of retrievers, by gold passage and by answer string (Figure 2a).

    Example: `irlens recall --retriever bm25,e5 --dataset path/to/beir/nq`
    """
    from irlens.cli import report
    from irlens.commands.recall import recall as command

    folder, results = command(settings, report.say)
    report.curves(results, "Recall@N (DPR's: a hit among the first N, ir_measures' Success@N)", "retriever")
    report.compared(folder / "tests.csv")
    report.written(folder)


@app.command("mine-negatives")
@takes(Mine)
def mine_negatives(settings: Mine) -> None:
    """Mine negatives in tiers of hardness (Figure 3a): lists of positives and negatives, for irlens, TRL and others.

    Example: `irlens mine-negatives --model mathstral --dataset gsm8k --tier easy,hard,hardest`
    """
    from irlens.cli import report
    from irlens.commands.mine_negatives import mine_negatives as command

    folder, lists, tally = command(settings, report.say)
    report.mined(lists, tally)
    report.hardness(folder / "hardness.csv")
    report.written(folder)


@app.command()
@takes(Train)
def train(settings: Train) -> None:
    """LarPO (Algorithm 1): sample, judge, rank, train; measured on held-out problems after each iteration.

    Example: `irlens train --objective contrastive --model mathstral --dataset gsm8k --iterations 3`
    """
    from irlens.cli import report
    from irlens.commands.train import train as command

    folder, results, tests = command(settings, report.say)
    if len(results):  # of several processes the first one reports
        report.trained(results, tests)
        report.written(folder)


@app.command()
@takes(Rerank)
def rerank(settings: Rerank) -> None:
    """Put a run in another order: by reward model, vote, likelihood, judge, length, oracle or at random.

    Example: `irlens rerank irlens-out/passk-mathstral-gsm8k --reranker fsfairx`
    """
    from irlens.cli import report
    from irlens.commands.rerank import rerank as command

    folder, results = command(settings, report.say)
    report.results(results)
    report.written(folder)


@app.command()
@takes(Verify)
def verify(settings: Verify) -> None:
    """Judge a run right or wrong by answer: qrels. A verifier `module:function` runs that module's code.

    Example: `irlens verify irlens-out/passk-tiny-sums --verifier gsm8k`
    """
    from irlens.cli import report
    from irlens.commands.rerank import verify as command

    folder, results = command(settings, report.say)
    report.results(results)
    report.written(folder)


@app.command("best-of-n")
@takes(BestOfN)
def best_of_n(settings: BestOfN) -> None:
    """What rerankers pick among N candidates, against oracle (Pass@N) and chance, and how well they rank.

    Example: `irlens best-of-n irlens-out/passk-tiny-sums --reranker majority,mean-likelihood,length`
    """
    from irlens.cli import report
    from irlens.commands.best_of_n import best_of_n as command

    folder, results = command(settings, report.say)
    report.best_of_n(results, folder / "quality.csv")
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
    complete: Annotated[
        bool, typer.Option(help="Judged queries that the run lacks count as 0 (trec_eval -c), or do not count.")
    ] = True,
    out: Out = None,
) -> None:
    """Evaluate a run with any measure of ir_measures, each with a 95 % interval over queries.

    Ties go to the larger doc_id, and queries without judgements are left out, as in trec_eval.

    Example: `irlens evaluate run.parquet qrels.parquet 'Success@1 Pass@10 nDCG@10 RR'`
    """
    from irlens.cli import report
    from irlens.commands.evaluate import evaluate as command

    folder, results = command(run, qrels, measures, out, complete, report.say)
    report.results(results)
    report.written(folder)


@app.command()
def temperatures(
    run: Annotated[Path, typer.Argument(help="Draws at several temperatures: a passk folder, or Parquet.")] = LATEST,
    qrels: Annotated[Path, typer.Argument(help="Their judgements: such a folder, or Parquet.")] = LATEST,
    least: Annotated[float, typer.Option(help="Share of prompts that must give a list.")] = 0.5,
    out: Out = None,
) -> None:
    """At which temperatures draws make lists (why Figure 3b has a middle): too low collapses, too high is all wrong.

    Example: `irlens temperatures irlens-out/passk-tiny-sums irlens-out/passk-tiny-sums`
    """
    from irlens.cli import report
    from irlens.commands.hardness import temperatures as command

    folder, table, sentences = command(run, qrels, least, out)
    report.temperatures(table, sentences)
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
    from irlens.cli import report
    from irlens.commands.evaluate import plot as command

    folder, files = command(table, title, x_label, y_label, log_x, style, out)
    report.say("drew " + ", ".join(path.name for path in files))
    report.written(folder)


@app.command()
def reproduce(
    recipe: Annotated[str | None, typer.Argument(help="A recipe's name, such as fig2b, or a TOML file.")] = None,
    preset: Annotated[
        str,
        typer.Option(help="tiny (embedded default, CPU), paper (the paper's models and data), or another of --list."),
    ] = "tiny",
    seeds: Annotated[str | None, typer.Option(help="Run it once for each of these seeds, such as 0,1,2,3,4.")] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1, help="Seeds and arms to run at once, by default one per core, or one alone where there is a GPU."
        ),
    ] = None,
    style: Annotated[str, typer.Option(help="screen or paper.")] = "screen",
    list_all: Annotated[bool, typer.Option("--list", help="Show all recipes and what they need.")] = False,
    dry_run: Annotated[
        bool, typer.Option(help="Show the stages and what they cost; run and download nothing.")
    ] = False,
    redraw: Annotated[
        Path | None, typer.Option(help="Draw and judge again from an earlier run's per_problem.parquet; run nothing.")
    ] = None,
    out: Out = None,
) -> None:
    """Reproduce a figure or table of the paper from its recipe.

    Example: `irlens reproduce fig2b --preset tiny`
    """
    from irlens.cli import plan, report
    from irlens.reproduce import recipe as recipes
    from irlens.reproduce import run

    if list_all:
        plan.listing()
        return
    if recipe is None:
        raise UserError("reproduce: name a recipe, such as fig2b; `irlens reproduce --list` shows all")
    several = None if seeds is None else numbers(seeds, "--seeds", int)
    loaded = recipes.load(recipe, preset)
    if dry_run:
        plan.dry_run(loaded, len(several or (0,)))
        return
    if redraw is not None:
        report.written(recipes.redraw(loaded, redraw, Path(out) if out else None, report.say, style))
        return
    report.written(run.run(loaded, Path(out) if out else None, report.say, several, style, jobs))


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Output folder; the same command continues it.")] = Path("irlens-out/demo"),
    seed: Annotated[int, typer.Option(help="Seed of the draws, the lists and the tests.")] = 0,
) -> None:
    """The whole loop on the embedded default: retrieve, rerank, mine, train, measure. About three minutes on two cores.

    Example: `irlens demo`
    """
    from irlens.cli import demo as whole_loop

    whole_loop.run(out, seed)


@app.command()
def doctor() -> None:
    """Versions, devices, and which optional parts are there or missing for what.

    Example: `irlens doctor`
    """
    from irlens.cli import report

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
        code = INTERRUPTED
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        _fail(f"the disk is full ({error}); what was written is kept: free some space, and the same command continues")
    except Exception as error:
        if not hasattr(error, "format_message"):  # a usage error of the command-line parser has it
            raise
        _fail(_of_old(error) or error.format_message())
    if code == INTERRUPTED:  # the command-line parser may have caught it and made it this code
        _fail("interrupted; the same command continues", code)
    sys.exit(code or 0)


def _of_old(error: Exception) -> str | None:
    """What an option that the parser does not know is called now, if it once had that name."""
    from irlens.commands import renamed

    typed, context = getattr(error, "option_name", None), getattr(error, "ctx", None)
    return typed and context and renamed.option(context.info_name, typed)


def _fail(message: str, code: int = 2) -> None:
    print("irlens: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(code)
