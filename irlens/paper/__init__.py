"""The exact points of the figures of "LLM Alignment as Retriever Optimization" (Jin et al., ICML 2025, arXiv 2502.03699).

`figures.csv` was read off the vector graphics of the figures: no point is a guess from pixels.
"""

from importlib import resources
from typing import TYPE_CHECKING

from irlens.errors import UserError, did_you_mean

if TYPE_CHECKING:
    import pandas as pd


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
