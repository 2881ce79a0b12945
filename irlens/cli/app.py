"""The command line: parse, call, print. Everything heavy is imported by the command that needs it."""

import errno
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from irlens.base import full, interrupts
from irlens.base.devices import first
from irlens.base.errors import UserError
from irlens.base.options import at_least
from irlens.base.secrets import kept_off_streams
from irlens.base.untrusted import in_one_line
from irlens.cli.options import Command, takes
from irlens.cli.rewardbench import rewardbench
from irlens.commands.chat import WinRate
from irlens.commands.exchange import Compare, Export, Import, MixEval
from irlens.commands.settings import (
    BestOfN,
    Demo,
    Evaluate,
    Index,
    Mine,
    PassK,
    Plot,
    Recall,
    Reproduce,
    Rerank,
    Sample,
    Store,
    Temperatures,
    Train,
    Verify,
)

NAMES = (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.EACCES)  # what is wrong with a path

app = typer.Typer(
    name="irlens",
    help="Language-model alignment through the eyes of information retrieval: the LLM is a retriever, the reward model a "
    "reranker. Start with `irlens demo`.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        from irlens.commands.folder import version

        print(f"irlens {version('irlens')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """What belongs to no command."""


@app.command(cls=Command)
@takes(Sample)
def sample(settings: Sample) -> None:
    """Draw responses to any prompts, with answers or without: a run for rerankers, mining and training to go on from.

    Example: `irlens sample --model mathstral --dataset prompts.jsonl --columns prompt=instruction -n 16`
    """
    from irlens.cli import report
    from irlens.commands.sample import sample as command

    folder, found = command(settings, report.say)
    report.drawn(found)
    report.written(folder)


@app.command(cls=Command)
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


@app.command(cls=Command)
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


@app.command(cls=Command)
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


@app.command("mine-negatives", cls=Command)
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


@app.command(cls=Command)
@takes(Train)
def train(settings: Train) -> None:
    """LarPO (Algorithm 1): sample, judge, rank, train; measured on held-out problems after each iteration.

    Example: `irlens train --objective contrastive --model mathstral --dataset gsm8k --iterations 3`
    """
    from irlens.cli import report
    from irlens.commands.train import train as command

    folder, results, tests = command(settings, report.say)
    if len(results):  # none of a training on lists alone
        report.trained(results, tests)
    report.written(folder)


@app.command(cls=Command)
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


@app.command(cls=Command)
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


@app.command("best-of-n", cls=Command)
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


@app.command(cls=Command)
@takes(Evaluate)
def evaluate(settings: Evaluate) -> None:
    """Evaluate a run with any measure of ir_measures, each with a 95 % interval over queries.

    Ties go to the larger doc_id, and queries without judgements are left out, as in trec_eval.

    Example: `irlens evaluate run.parquet qrels.parquet 'Success@1 Pass@10 nDCG@10 RR'`
    """
    from irlens.cli import report
    from irlens.commands.evaluate import evaluate as command

    s = settings
    folder, results = command(Path(s.run), Path(s.qrels), s.measures, s.out, s.complete, report.say)
    report.results(results)
    report.written(folder)


@app.command(cls=Command)
@takes(Compare)
def compare(settings: Compare) -> None:
    """Two systems or more over the same prompts: paired tests, Holm over all, what they could see, win rates of texts.

    A system is a run, a folder of values, or a model, which draws first.

    Example: `irlens compare tiny irlens-out/import-a --dataset sums -n 8 --measures 'Pass@1 Pass@8'`
    """
    from irlens.cli import report
    from irlens.commands.compare import compare as command

    folder, values, tests = command(settings, report.say)
    report.systems(values, tests)
    report.written(folder)


@app.command(cls=Command)
@takes(WinRate)
def winrate(settings: WinRate) -> None:
    """Win rates against a baseline by a judge: plain, discrete and length-controlled (AlpacaEval 2).

    Example: `irlens winrate model_outputs.json --baseline gpt4_outputs.json --judge fsfairx`
    """
    from irlens.cli import report
    from irlens.commands.winrate import winrate as command

    folder, results = command(settings, report.say)
    report.win_rates(results)
    report.written(folder)


@app.command(cls=Command)
@takes(MixEval)
def mixeval(settings: MixEval) -> None:
    """MixEval and MixEval-Hard: a table of systems, with intervals over distinct items, by type and benchmark.

    Example: `irlens mixeval irlens-out/sample-mathstral-mixeval-2024-08-11 --dataset MixEval/mix_eval/data/mixeval-2024-08-11`
    """
    from irlens.cli import report
    from irlens.commands.mixeval import mixeval as command

    folder, results, tests = command(settings, report.say)
    report.mixeval(results, tests)
    report.written(folder)


app.command(cls=Command)(rewardbench)


@app.command("import", cls=Command)
@takes(Import)
def import_draws(settings: Import) -> None:
    """Another tool's draws as a run, and as qrels where it judged them: Pass@N with intervals, and on to all the rest.

    Example: `irlens import samples_gsm8k.jsonl --dataset gsm8k`
    """
    from irlens.cli import report
    from irlens.commands.imports import import_draws as command

    folder, results = command(settings, report.say)
    report.results(results)
    report.written(folder)


@app.command(cls=Command)
@takes(Export)
def export(settings: Export) -> None:
    """Draws and lists as files for TRL, sentence-transformers, lm-eval, Every Eval Ever, TREC.

    Example: `irlens export irlens-out/passk-tiny-sums --to every-eval-ever`
    """
    from irlens.cli import report
    from irlens.commands.exports import export as command

    folder, files = command(settings, report.say)
    report.say("wrote " + ", ".join(path.name for path in files))
    report.written(folder)


@app.command(cls=Command)
@takes(Temperatures)
def temperatures(settings: Temperatures) -> None:
    """At which temperatures draws make lists (why Figure 3b has a middle): too low collapses, too high is all wrong.

    Example: `irlens temperatures irlens-out/passk-tiny-sums irlens-out/passk-tiny-sums`
    """
    from irlens.cli import report
    from irlens.commands.hardness import temperatures as command

    folder, table, sentences = command(Path(settings.run), Path(settings.qrels), settings.least, settings.out)
    report.temperatures(table, sentences)
    report.written(folder)


@app.command(cls=Command)
@takes(Plot)
def plot(settings: Plot) -> None:
    """Draw a figure (PNG and PDF) from its table.

    Example: `irlens plot irlens-out/passk-tiny-sums/passk.csv --log-x --style paper --out fig2b`
    """
    from irlens.cli import report
    from irlens.commands.evaluate import plot as command

    folder, files = command(settings)
    report.say("drew " + ", ".join(path.name for path in files))
    report.written(folder)


@app.command(cls=Command)
@takes(Reproduce)
def reproduce(settings: Reproduce) -> None:
    """Reproduce a figure or table of the paper from its recipe.

    Example: `irlens reproduce fig2b --preset tiny`
    """
    from irlens.cli import plan, report
    from irlens.commands import memory
    from irlens.reproduce import recipe, run

    if settings.list_all:
        plan.listing()
        return
    if settings.recipe is None:
        raise UserError("reproduce: name a recipe, such as fig2b; `irlens reproduce --list` shows all")
    at_least(1, jobs=settings.jobs)
    loaded = recipe.load(settings.recipe, settings.preset)
    out = Path(settings.out) if settings.out else None
    if settings.dry_run:
        room = settings.device_memory and memory.parse(settings.device_memory)
        plan.dry_run(loaded, len(settings.seeds or (0,)), room)
    elif settings.rehearse:
        from irlens.reproduce import rehearsal

        folder = rehearsal.rehearse(loaded, out, settings.devices, settings.device_kind, report.say)
        report.say(f"written to {folder / rehearsal.PAGE}")
    elif settings.redraw is not None:
        report.written(run.redraw(loaded, Path(settings.redraw), out, report.say, settings.style))
    else:
        s = settings
        jobs = s.jobs or (1 if s.devices else None)  # the devices belong to one part at a time
        report.written(run.run(loaded, out, report.say, s.seeds, s.style, jobs, s.store, s.devices))


@app.command(cls=Command)
@takes(Demo)
def demo(settings: Demo) -> None:
    """The whole loop on the embedded default: retrieve, rerank, mine, train, measure. About three minutes on two cores.

    Example: `irlens demo`
    """
    from irlens.cli import demo as whole_loop

    whole_loop.run(Path(settings.out), settings.seed)


@app.command(cls=Command)
@takes(Store)
def store(settings: Store) -> None:
    """What the store holds that commands share: draws and scores, by which models, how large, last used when.

    Deleting its folder is always safe: what is missing is made again.

    Example: `irlens store --prune --older-than 30 --max-size 10GB`
    """
    from irlens.cli import report
    from irlens.commands.store import store as command

    report.store(command(settings, report.say))


@app.command(cls=Command)
def doctor() -> None:
    """Versions, devices, and which optional parts are there or missing for what.

    Example: `irlens doctor`
    """
    from irlens.cli import report

    report.doctor()


def main() -> None:
    """The command line: a user's mistake is one line on standard error and exit code 2, an interrupt one and 128 + its
    signal.

    Of the processes of `accelerate launch` or torchrun the first does it all, with workers of its own on as many devices.
    """
    if first():
        with kept_off_streams():
            _main()


def _main() -> None:
    try:
        code = app(standalone_mode=False)
    except UserError as error:
        _fail(str(error))
    except typer.Exit as stop:
        code = stop.exit_code
    except (interrupts.Interrupted, KeyboardInterrupt, typer.Abort) as error:
        _fail(interrupts.LINE, interrupts.ended(error))
    except Exception as error:
        if (cause := full.is_full(error)) is not None:
            _fail(full.in_words(cause))
        if isinstance(error, OSError) and error.errno in NAMES:  # of a path that was given
            _fail(f"{error.filename or 'a path'}: cannot be read or written ({error.strerror})")
        if not hasattr(error, "format_message"):  # a usage error of the command-line parser has it
            raise
        _fail(_of_old(error) or error.format_message())
    if code == 128 + signal.SIGINT:  # the command-line parser has caught KeyboardInterrupt and made it this code
        _fail(interrupts.LINE, interrupts.ended(KeyboardInterrupt()))
    sys.exit(code or 0)


def _of_old(error: Exception) -> str | None:
    """What an option that the parser does not know is called now, if it once had that name."""
    from irlens.commands import renamed

    typed, context = getattr(error, "option_name", None), getattr(error, "ctx", None)
    return typed and context and renamed.option(context.info_name, typed)


def _fail(message: str, code: int = 2) -> None:
    print(in_one_line("irlens: " + message), file=sys.stderr)
    sys.exit(code)
