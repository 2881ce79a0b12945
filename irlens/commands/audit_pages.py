"""The page of a reranker's audit, and its figures: scores, calibration, length, right from wrong, over-optimisation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.commands.compare_pages import interval, marked, number, table

if TYPE_CHECKING:
    import pandas as pd

    from irlens.measure.audit import Audit

RELIABILITY, OVER = "reliability", "over-optimisation"
SECTIONS = {  # heading → how the measures in it begin, and what they say
    "Right from wrong": (
        ("AUC", "pairs in the right order"),
        "AUC: the chance that a right candidate scores above a wrong one of the same prompt, a tie counting one half; over "
        "candidates as often as they were drawn. Pairs: the same over distinct texts. 0.5 is chance. Pooled over prompts, a "
        "reranker that only tells hard prompts from easy ones looks good.",
    ),
    "Calibration": (
        ("Brier",),
        "Right beats wrong: the Bradley-Terry probability 1 / (1 + exp(−difference of scores)), over all pairs of a right and "
        "a wrong text of a prompt; it means something for scores that a Bradley-Terry loss trained, or that are log-odds. Is "
        "right: the chance that a draw is right. Brier score: the mean squared distance from what came true; 0 is best, and "
        "0.25 is a coin's between two answers.",
    ),
    "Length": (
        ("reward and length", "being right and length"),
        "Rank correlation of scores with the number of characters, over the distinct texts of a prompt; prompts whose texts "
        "are all of one length or one score say nothing. A reranker may go with length as far as being right does.",
    ),
    "Over-optimisation": (
        ("true value",),
        "What the reranker's pick among N draws is truly worth, expected over every choice of N. The null is a random number "
        "for each distinct text: a reranker that knows nothing falls with N too where right answers are few texts drawn often. "
        "Rows with two N say what is lost (below 0) from the N at which the reranker is best to the largest; that N was chosen "
        "by these very draws, so a loss looks a little larger than it is.",
    ),
}


def figures(audits: Mapping[str, Audit], out: Path) -> dict[str, str]:
    """Draws what there is to draw; returns {figure's name: what it shows}."""
    import pandas as pd

    from irlens.commands.best_of_n import SHOWN
    from irlens.measure.audit import GAIN, PROXY
    from irlens.measure.plots import curves as plots

    found, parts = {}, []
    for on, audit in audits.items():
        parts += [part.assign(curve=f"{on}: {of}") for of, part in audit.reliability.groupby("of", sort=False)]
        if (over := audit.over_optimisation) is not None:
            shown = over[~over["run"].isin((PROXY, GAIN))]
            drawn = shown.assign(curve=shown["run"].replace(SHOWN), x=shown["cutoff"])
            drawn = drawn[["curve", "x", "value", "low", "high", "n"]]
            labels = {"x_label": "N (draws per prompt)", "y_label": "true value of the pick"}
            plots.curves(drawn, out / OVER, title=f"Best of N by {audit.name}: {on}", log_x=True, **labels)
            found[OVER] = "what the pick among N draws is truly worth"
    if parts:
        ends = pd.DataFrame({"curve": "as foretold", "x": [0.0, 1.0], "value": [0.0, 1.0]})
        labels = {"x_label": "foretold probability", "y_label": "share that came true"}
        title = f"Reliability of {next(iter(audits.values())).name}"
        drawn = pd.concat([*parts, ends], ignore_index=True)[["curve", "x", "value", "low", "high", "n", "prompts"]]
        plots.curves(drawn, out / RELIABILITY, title=title, **labels)
        found[RELIABILITY] = "of what was given a probability, the share that came true"
    return found


def page(
    name: str,
    audits: Mapping[str, Audit],
    bench: pd.DataFrame | None,
    drawn: Mapping[str, str],
    relative: bool,
) -> str:
    """The whole audit in Markdown."""
    parts = [f"# Audit of the reranker {marked(name)}", "Every value with its 95 % interval over prompts."]
    if relative:
        parts.append(
            "Its scores hold within one list only: what compares scores of two prompts (Ties, what is pooled) says little."
        )
    if bench is not None:
        parts += ["## RewardBench 2", _scores(bench)]
    for heading, (begins, words) in SECTIONS.items():
        rows = [
            (
                marked(row.measure),
                marked(on),
                number(row.value, ".3f"),
                interval(row.low, row.high),
                f"{row.n:,}",
            )
            for on, audit in audits.items()
            for row in audit.summary.itertuples()
            if row.measure.startswith(begins)
        ]
        if not rows:
            continue
        parts += [f"## {heading}", words]
        if heading == "Over-optimisation":
            parts += [
                _curves(audit.over_optimisation) for audit in audits.values() if audit.over_optimisation is not None
            ]
        parts.append(table(("measure", "on", "value", "95 % interval", "prompts"), rows))
        figure = {"Calibration": RELIABILITY, "Over-optimisation": OVER}.get(heading)
        parts += [f"![{drawn[figure]}]({figure}.png)"] if figure in drawn else []
    return "\n\n".join(parts) + "\n"


def _scores(bench: pd.DataFrame) -> str:
    """The table of subsets, and what they mean."""
    cells = [
        (r.measure, f"{100 * r.value:.1f}", interval(100 * r.low, 100 * r.high, ".1f"), f"{r.n:,}")
        for r in bench.itertuples()
    ]
    told = (
        "Per cent. A prompt counts 1 where the right completion scores highest of all, shared where several do. Ties weighs "
        "whether all right answers are above all wrong ones, and by more than they differ (n: pairs of prompts). The last "
        "row is the mean of the six, where all six are there. Intervals resample prompts within each subset."
    )
    return "\n\n".join([table(("subset", "score", "95 % interval", "n"), cells), told])


def _curves(over: pd.DataFrame) -> str:
    """A row per curve, a column per N."""
    at = sorted(over["cutoff"].unique())
    rows = []
    for run, some in over.groupby("run", sort=False):
        cells = {row.cutoff: f"{number(row.value, '.3f')} {interval(row.low, row.high)}" for row in some.itertuples()}
        rows.append([marked(run), *(cells.get(N, "") for N in at)])
    return table(["best of N by", *(f"N = {N:,}" for N in at)], rows)
