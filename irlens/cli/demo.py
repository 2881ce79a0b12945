"""`irlens demo`: the whole loop on the embedded default, told step by step."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich.table import Table

from irlens.base import seeds
from irlens.cli import report
from irlens.cli.report import console, say
from irlens.commands import best_of_n as picking
from irlens.commands import evaluate as measuring
from irlens.commands.evaluate import in_words
from irlens.commands.folder import OutputFolder
from irlens.commands.mine_negatives import mine_negatives
from irlens.commands.passk import passk
from irlens.commands.settings import BestOfN, Mine, PassK, Train
from irlens.commands.train import train

TEMPERATURES = (0.1, 0.2, 0.5, 0.7, 1.0)
CUTOFFS = (1, 2, 5, 10, 20, 50)
RERANKERS = ("likelihood", "majority", "tiny-rm")
NULL, DRAW = picking.SHOWN["random per text"], picking.SHOWN["random"]


@dataclass(frozen=True)
class Size:
    """How much the demo works through."""

    problems: int = 200  # sampled and mined
    prompts: int = 1000  # trained on in each iteration
    held_out: int = 500
    picked: int = 100  # problems of best-of-N


def run(out: Path, seed: int, size: Size = Size()) -> None:
    """Runs or continues the demo in `out` and prints what happened."""
    seeds.check(seed)
    with OutputFolder(out, "demo", {"seed": seed}):
        _tell(out, seed, size)


def _tell(out: Path, seed: int, size: Size) -> None:
    started = time.monotonic()
    console.rule("1  The LLM as a retriever: Pass@N is its Recall@N (Figure 2b)", align="left")
    drawn = {"limit": size.problems, "seed": seed}
    asked = PassK(**drawn, n=CUTOFFS[-1], temperature=TEMPERATURES, at=CUTOFFS, out=str(out / "1-passk"))
    _, passed = passk(asked, say)
    report.curves(passed, "Pass@N of tiny on sums", "temperature")
    say(_crossing(passed))

    console.rule(
        "2  Rerankers on top: best of N by likelihood, vote and a learned one, against the oracle", align="left"
    )
    picked = best_of_n(out, seed, size.picked)
    report.curves(picked, "Best of N of tiny-countdown on countdown, temperature 0.7", "reranker")
    say(_gap(picked))

    console.rule("3  Negatives in four tiers of hardness (Figure 3a)", align="left")
    _, lists, tally = mine_negatives(Mine(**drawn, out=str(out / "2-mine-negatives")), say)
    report.mined(lists, tally)

    console.rule("4  Two LarPO iterations, contrastive objective", align="left")
    plan = {"iterations": 2, "prompts": size.prompts, "n": 8, "lists": 2, "epochs": 1}
    held_out = {"eval_split": "test", "eval_limit": size.held_out}
    _, curve, tests = train(Train(**plan, **held_out, seed=seed, out=str(out / "3-train")), say)
    report.trained(curve, tests)

    console.rule("What happened", align="left")
    _write_figures(out, passed, picked, curve)
    report.tables.print(_summary(picked, tally, curve, tests))
    for sentence in in_words(tests):
        say(sentence)
    say(
        f"Figures and their tables: {out}/fig2b.*, {out}/best-of-n.*, {out}/fig3.* ({time.monotonic() - started:.0f} s)"
    )
    say("Next, on a GPU:  irlens passk --model mathstral  and  irlens train --objective contrastive --model mathstral")


def best_of_n(out: Path, seed: int, problems: int) -> pd.DataFrame:
    """Results of what rerankers pick among draws for `countdown`, at every N of CUTOFFS, by the names that figures have.

    `countdown`, because it has a learned reranker. Beside those of RERANKERS: the oracle (Pass@N), a random draw, and a
    random number per distinct text, which is what a reranker that knows nothing picks by.
    """
    drawn = PassK(
        model="tiny-countdown", limit=problems, n=CUTOFFS[-1], temperature=(0.7,), at=CUTOFFS, seed=seed, out=str(out / "countdown")
    )  # fmt: skip
    folder, _ = passk(drawn, say)
    asked = BestOfN(
        run=str(folder), reranker=",".join(RERANKERS), at=CUTOFFS, seed=seed, out=str(out / "countdown-best-of-n")
    )
    _, results = picking.best_of_n(asked, say)
    return results.replace({"run": picking.SHOWN})


def _value(found: pd.DataFrame, run: str, cutoff: int) -> float:
    return float(found[(found["run"] == run) & (found["cutoff"] == cutoff)]["value"].iloc[0])


def _crossing(passed: pd.DataFrame) -> str:
    """Which temperature is best at the smallest and at the largest N."""
    first = passed[passed["cutoff"] == CUTOFFS[0]].sort_values("value").iloc[-1]
    last = passed[passed["cutoff"] == CUTOFFS[-1]].sort_values("value").iloc[-1]
    if first["run"] == last["run"]:
        return f"{first['run']} is best at N = {CUTOFFS[0]} and still at N = {CUTOFFS[-1]}: here the curves do not cross as in the paper."
    return (
        f"At N = {CUTOFFS[0]} the best is {first['run']} ({first['value']:.3f}); at N = {CUTOFFS[-1]} it is {last['run']} "
        f"({last['value']:.3f}): one draw wants a low temperature, many draws a high one."
    )


def _gap(picked: pd.DataFrame) -> str:
    most = CUTOFFS[-1]
    share = {run: f"{100 * _value(picked, run, most):.0f} %" for run in picked["run"].unique()}
    fewer = _value(picked, NULL, most) < _value(picked, DRAW, most)
    less = " (right answers are fewer among the texts than among the draws)" if fewer else ""
    return (
        f"With {most} draws a right answer is among them for {share['oracle (Pass@N)']} of the problems. Likelihood finds it for "
        f"{share['likelihood']}, voting for {share['majority vote']}, the learned tiny-rm for {share['tiny-rm']}; a random number "
        f"per distinct text, which knows nothing, for {share[NULL]}{less}; one draw is right for {share[DRAW]}. "
        "The rest is what a better reranker, or training on its rankings, could win."
    )


def _write_figures(out: Path, passed, picked, curve) -> None:
    from irlens.measure.plots import curves as plots

    measuring.plot_passk(passed, out / "fig2b", "Pass@N of tiny on sums")
    table = picked.assign(curve=picked["run"], x=picked["cutoff"])[["curve", "x", "value", "low", "high", "n"]]
    plots.curves(
        table,
        out / "best-of-n",
        title="Best of N on countdown, temperature 0.7",
        x_label="N (draws per problem)",
        y_label="share of problems solved",
        log_x=True,
    )
    measuring.plot_iterations(curve, out / "fig3", "LarPO, contrastive, on sums")


def _summary(picked: pd.DataFrame, tally: pd.DataFrame, curve: pd.DataFrame, tests: pd.DataFrame) -> Table:
    most = CUTOFFS[-1]
    table = report.new_table("irlens demo", "", "start", "after LarPO", "points", "p (Holm)")
    for row in tests.itertuples():
        of = curve[curve["curve"] == row.measure].set_index("x")
        start, end = (report.short_value(of.loc[x]) for x in (0, of.index.max()))
        table.add_row(f"{row.measure}, T = 1", start, end, f"{100 * row.difference:+.1f}", f"{row.p_holm:.4f}")
    for run in (*RERANKERS, "random per text", "oracle"):
        shown = picking.SHOWN.get(run, run)
        table.add_row(f"countdown, best of {most}: {shown}", f"{_value(picked, shown, most):.3f}")
    for row in tally.itertuples():
        table.add_row(f"{row.tier} negatives", f"{row.prompts_with} of {row.prompts} prompts")
    return table
