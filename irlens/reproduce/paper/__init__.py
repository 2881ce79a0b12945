"""The points of the figures and the numbers of the tables of "LLM Alignment as Retriever Optimization" (Jin et al.,
ICML 2025, arXiv 2502.03699).

`figures.csv` was read off the vector graphics of the figures: no point is a guess from pixels.
"""

from importlib import resources
from typing import TYPE_CHECKING

from irlens.base.errors import UserError, did_you_mean

if TYPE_CHECKING:
    import pandas as pd

    from irlens.reproduce.records import Study


def points(figure: str) -> "pd.DataFrame":
    """The points of a figure (2a, 2b, 3a, 3b, 3c, 4) as `figure, curve, x_name, x, y_name, y`, in the paper's order."""
    import pandas as pd

    with resources.files(__name__).joinpath("figures.csv").open(encoding="utf-8") as file:
        table = pd.read_csv(file, dtype={"figure": str})
    chosen = table[table["figure"] == figure]
    if chosen.empty:
        raise UserError(
            f"unknown figure of the paper {figure!r}: {did_you_mean(str(figure), table['figure'].unique())}"
        )
    return chosen.reset_index(drop=True)


NAMED = {  # a method of the tables → what a recipe calls it; others by their name in small letters
    "SFT": "start",
    "RDPO": "r-dpo",
    "DPO": "dpo",
    "Iterative DPO": "iterative-dpo",
    "LARPO (Contrastive)": "contrastive",
    "LARPO (LambdaRank)": "lambdarank",
    "LARPO (ListMLE)": "listmle",
    "w. current": "current",
    "w. current + prev": "previous",
    "w. current + all prev": "all",
}


def table(name: str, column: str) -> "pd.DataFrame":
    """A column of table2, table3 or table4 as `group` (the models), `bar` (the method, as recipes name it), `value`."""
    import pandas as pd

    known = sorted(path.name[:-4] for path in resources.files(__name__).iterdir() if path.name.startswith("table"))
    if name not in known:
        raise UserError(f"unknown table of the paper {name!r}: {did_you_mean(name, known)}")
    with resources.files(__name__).joinpath(f"{name}.csv").open(encoding="utf-8") as file:
        found = pd.read_csv(file)
    models = [c for c in ("base_model", "reward_model", "model") if c in found.columns]
    numbers = [c for c in found.columns if c not in (*models, "method")]
    if column not in numbers:
        raise UserError(f"{name} of the paper has no column {column!r}: {did_you_mean(column, numbers)}")
    group = found[models].agg(", ".join, axis=1).str.removesuffix(", -") if models else "Gemma2-2b-it"
    bar = found["method"].map(lambda method: NAMED.get(method, method.lower()))
    return pd.DataFrame({"group": group, "bar": bar, "value": found[column]})


def beside(name: str, column: str = "") -> "pd.DataFrame":
    """What a study draws beside its own: a figure's points (`curve, x, value, x_name, y_name`), or a table's column."""
    if name.startswith("table"):
        return table(name, column)
    return points(name).rename(columns={"y": "value"})


COLUMNS = {"MixEval": "mixeval", "MixEval-Hard": "mixeval_hard"}  # measure → the column of a table
GPT4, LLAMA3 = "alpaca_eval_gpt4_turbo_fn", "alpaca_eval_llama3_70b_fn"
JUDGES = {  # column, or figure, as far as its name begins so → who judged
    "alpacaeval2_lc_wr": f"{GPT4} (of its baselines, which are copied, perhaps its weighted sibling)",
    "alpacaeval2_wr": f"{GPT4} (of its baselines, which are copied, perhaps its weighted sibling)",
    "alpacaeval2_gpt4": GPT4,
    "alpacaeval2_llama3_70b": LLAMA3,
}
UNNAMED = f"not named (its numbers are near {LLAMA3}'s)"  # of Figures 3b, 3c and 4


def column(of_study: str, measure: str) -> str:
    """The column of a table that has a measure. of_study: that of one of its win rates."""
    stem = of_study.removesuffix("_lc_wr").removesuffix("_wr")
    return COLUMNS.get(measure, f"{stem}_{'lc_wr' if measure == 'LCWinRate' else 'wr'}")


def judge(study: "Study | None", measure: str) -> str:
    """Who judged the paper's numbers that a study has beside its own; "" where it has none, or nobody knows."""
    if study is None or not study.beside:
        return ""
    if not study.beside.startswith("table"):
        return UNNAMED
    name = column(study.column, measure)
    return next((judge for start, judge in JUDGES.items() if name.startswith(start)), "")
