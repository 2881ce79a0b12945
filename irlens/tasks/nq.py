"""`nq`: Natural Questions with short answers on the 21 million Wikipedia passages of DPR, through ir_datasets."""

from irlens.tasks import irds
from irlens.tasks.contract import Task, pick_split

SPLITS = ("dev", "train")
ID = "dpr-w100/natural-questions"


def load(split: str | None = None, limit: int | None = None) -> Task:
    """The first `limit` questions (dev: 6,515); relevance by answer string as DPR evaluates, and by judged passage."""
    return irds.load_id(f"{ID}/{pick_split(split or SPLITS[0], SPLITS, 'nq')}", None, limit)
