"""Stages `evaluate` and `plot`, the figures of the others, and results in words."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.base import files
from irlens.base.options import identity
from irlens.commands.folder import OutputFolder
from irlens.commands.settings import Plot
from irlens.measure.plots.style import checked_style
from irlens.retrieve.policy import Say, concat

if TYPE_CHECKING:
    import pandas as pd


def evaluate(
    run: Path, qrels: Path, names: str, out: str | None = None, complete: bool = True, say: Say = print
) -> tuple[Path, pd.DataFrame]:
    """The folder and the results (run, measure, cutoff, value, low, high, n) of a run file.

    Queries that the qrels do not judge are left out; judged queries that the run lacks count as 0, or not at all where
    `complete` is off. Both are counted in a line. The draws of a model (a run with a column `draw`) are judged tag by
    tag against their own judgements only: what was drawn at another temperature is nothing that this run could have
    retrieved. The folder holds results.csv, per_query.csv and the manifest.
    """
    import irlens.measure
    from irlens import tables
    from irlens.commands.runs import read_judgements
    from irlens.measure import measures

    parsed = measures.parse(names)
    found, judged = tables.read_run(run), read_judgements(qrels)
    found, unjudged = measures.judged_part(found, judged)
    results = irlens.measure(found, judged, parsed, complete=complete)
    missing = _missing(found, judged) if "draw" not in found.columns else {}
    if unjudged:
        say(f"{unjudged:,} queries of the run are not in the qrels: left out, as by trec_eval")
    for name, count in missing.items():
        how = "count as 0 (trec_eval -c); --no-complete leaves them out" if complete else "left out (--no-complete)"
        say(f"{count:,} judged queries are not in the run {name!r}: {how}")
    for row in results[results["n"] < results.groupby("run")["n"].transform("max")].itertuples():
        say(f"{row.measure} of {row.run!r}: over {row.n:,} queries, as it is not defined for the others")
    kept = {"run": str(run), "qrels": str(qrels), "measures": [str(measure) for measure in parsed]}
    kept |= {"rows": len(found), "judgements": len(judged), "complete": complete}
    folder = Path(out) if out else own_folder("evaluate", run, kept)
    with OutputFolder(folder, "evaluate", kept) as output:
        files.write_csv(results, folder / "results.csv")
        files.write_csv(results.per_query, folder / "per_query.csv")
        output.note(queries_not_judged=unjudged, queries_not_in_run=missing)
    return folder, results


def _missing(run: pd.DataFrame, qrels: pd.DataFrame) -> dict[str, int]:
    """{tag: judged queries that the run of that tag lacks}, where it lacks any. The run holds judged queries only."""
    tags = run["tag"].astype(str) if "tag" in run.columns else ["run"] * len(run)
    missing = qrels["query_id"].nunique() - run.groupby(tags)["query_id"].nunique()
    return {name: int(count) for name, count in missing.items() if count}


def own_folder(command: str, path: Path, settings: dict) -> Path:
    """A default output folder of its own for each input and setting of a quick command."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
    return Path("irlens-out") / f"{command}-{path.resolve().stem}-{digest}"


def judgements_of(run: pd.DataFrame, qrels: pd.DataFrame) -> pd.DataFrame:
    """The qrels of the documents in `run`, if it is a model's draws; else all of them."""
    from irlens.measure import results

    return results.judgements_of(run, qrels)


def plot(settings: Plot) -> tuple[Path, list[Path]]:
    """The folder and the files (PNG, PDF, CSV) of a figure, drawn from a table that irlens wrote beside one."""
    from irlens.measure.plots import curves as plots

    table, style = Path(settings.table), settings.style
    found, kept = plots.read_results(table), identity(settings, table=str(table))
    checked_style(style)
    folder = Path(settings.out) if settings.out else own_folder("plot", table, kept)
    with OutputFolder(folder, "plot", kept):
        path = folder / table.stem
        if "curve" in found.columns:
            labels = {"title": settings.title, "x_label": settings.x_label, "y_label": settings.y_label}
            return folder, plots.curves(found, path, **labels, log_x=settings.log_x, style=style)
        return folder, plots.bars(found, path, title=settings.title, value_label=settings.y_label, style=style)


DRAWN = ["curve", "x", "value", "low", "high", "n"]


def passk_curves(results: pd.DataFrame) -> pd.DataFrame:
    """Pass@N against N, one curve per temperature: what `plots.curves` draws."""
    curve = results["run"]
    if "temperature" in results.columns:
        curve = curve.where(results["temperature"].isna(), [f"T = {t:g}" for t in results["temperature"]])
    return results.assign(curve=curve, x=results["cutoff"])[DRAWN]


def recall_curves(results: pd.DataFrame) -> pd.DataFrame:
    """Recall@N against N, one curve per retriever; judged by answer string where that is known, as DPR and Figure 2a."""
    answers = results["run"].str.endswith(", answer string")
    chosen = results[answers] if answers.any() else results
    curve = chosen["run"].str.replace(r", (answer string|gold passage)$", "", regex=True)
    return chosen.assign(curve=curve, x=chosen["cutoff"])[DRAWN]


def plot_passk(results: pd.DataFrame, path: Path, title: str, paper: pd.DataFrame | None = None) -> list[Path]:
    """Figure 2b's form: Pass@N against N, one curve per temperature."""
    from irlens.measure.plots import curves as plots

    labels = {"x_label": "N (draws per problem)", "y_label": "Pass@N"}
    return plots.curves(passk_curves(results), path, title=title, log_x=True, paper=paper, **labels)


def plot_iterations(results: pd.DataFrame, path: Path, title: str, measure: str = "Pass@N") -> list[Path]:
    """Figure 3a's form: a measure against the iteration."""
    from irlens.measure.plots import curves as plots

    labels = {"x_label": "LarPO iteration", "y_label": f"{measure} on held-out problems"}
    return plots.curves(results, path, title=title, **labels)


WATCHED = (  # panel, y label, {column of the log: curve}
    (
        "Log-ratios",
        "log π/π_ref (nats per response)",
        {"logratio_positive": "positives", "logratio_negative": "negatives"},
    ),
    ("Likelihoods", "log π (nats per response)", {"logp_positive": "positives", "logp_negative": "negatives"}),
    ("Loss and accuracy", "per step", {"loss": "loss", "reward_accuracy": "implicit-reward accuracy"}),
    ("Distance and gradient", "per step", {"kl": "KL to the reference (nats)", "grad_norm": "gradient norm"}),
)


def plot_diagnostics(out: Path, iterations: int) -> None:
    """What the steps of all iterations showed, one after the other: `out/diagnostics.{png,pdf,csv}`."""
    import pandas as pd

    from irlens.measure.plots import panels

    logs, steps = [], 0
    for s in range(1, iterations + 1):
        log = pd.read_csv(out / f"iteration-{s}" / "log.csv")
        logs.append(log.assign(at=log["step"] + steps))
        steps += int(log["step"].max())
    log = concat(logs)
    parts = []
    for title, label, curves in WATCHED:
        drawn = [
            pd.DataFrame({"curve": name, "x": log["at"], "value": log[column]}).dropna()
            for column, name in curves.items()
            if column in log.columns
        ]
        if any(map(len, drawn)):
            parts.append(panels.Panel(concat(drawn), title, "step", label))
    panels.panels(parts, out / "diagnostics", share_y=False)


def format_value(row) -> str:
    """`0.436 [0.391, 0.482]` of a results row."""
    return f"{row.value:.3f} [{row.low:.3f}, {row.high:.3f}]"


def in_words(tests: pd.DataFrame, alpha: float = 0.05) -> list[str]:
    """One sentence per paired test: what changed, by how much, and whether it can be told from chance. A reward has units of
    its own; everything else is a rate, in points of a hundred."""
    out = []
    for row in tests.itertuples():
        verb = "rose" if row.difference > 0 else "fell" if row.difference < 0 else "did not change"
        by = f" by {_change(row)}" if row.difference else ""
        verdict = "a significant change" if row.p_holm < alpha else "not significant: it may be chance"
        out.append(
            f"{row.measure} {verb}{by} over {row.n} problems (paired randomisation test, p = {row.p_holm:.4f} "
            f"after Holm's correction, d = {row.effect:+.2f}): {verdict}."
        )
    return out


def _change(row) -> str:
    """`4.1 points [+2.0, +6.2]` of a rate, `0.41 [+0.20, +0.62] of the reward's own units` of a reward."""
    if not str(row.measure).lower().startswith("reward"):
        return f"{100 * abs(row.difference):.1f} points [{100 * row.low:+.1f}, {100 * row.high:+.1f}]"
    return f"{abs(row.difference):.3g} [{row.low:+.3g}, {row.high:+.3g}] of the reward's own units"
