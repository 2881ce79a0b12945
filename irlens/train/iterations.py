"""What an iteration has made, kept: each table computed once and written by rename, or read where it is there."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from irlens.base import checksums
from irlens.base.errors import NothingToRank, UserError
from irlens.base.files import write_csv, write_parquet, write_text
from irlens.base.secrets import without
from irlens.negatives.lists import FAULTS, in_words
from irlens.train.course import FRESH, State, iterations_of
from irlens.train.options import BEFORE

if TYPE_CHECKING:
    import pandas as pd

    from irlens.tasks.contract import Task
    from irlens.train.options import TrainOptions

Say = Callable[[str], None]


@dataclass(frozen=True)
class Kept:
    """Iteration s keeps its tables in `out/iteration-s/`, or nowhere (`out` None). `say` gets a line of what happens."""

    out: Path | None = None
    say: Say = lambda line: None
    states: Path | None = None  # where optimisers' states go that `out` does not hold

    def claim(self, told: dict) -> None:
        """Marks the folder as that of a run by which `told` (larpo.json) was told. Raises UserError, naming what differs,
        if it is another's: no table of another run is ever read."""
        if self.out is None:
            return
        path, told = self.out / "larpo.json", without(json.loads(json.dumps(told)))
        if not path.is_file():
            if self.out.is_dir() and any(self.out.iterdir()):
                raise UserError(f"{self.out}: the folder is not empty and holds nothing of `larpo`; choose another")
            write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", path)
            return
        try:
            was = {"save_dtype": "float32", **BEFORE}  # what folders of before have
            was |= json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, TypeError) as error:
            raise UserError(f"{path}: not what `larpo` wrote ({error}); choose another folder") from error
        for name in sorted({*was, *told}):
            if was.get(name) != told.get(name):
                had, now = was.get(name), told.get(name)
                raise UserError(f"{self.out}: was made with {name} = {had!r}, now {now!r}; choose another folder")

    @contextmanager
    def checked(self) -> Iterator[None]:
        """For who has no output folder of a command: what is not as it was written is deleted with a line, and what is
        written gets its checksum."""
        if self.out is None:
            yield
            return
        checksums.check(self.out, self.say)
        with checksums.recording(self.out):
            yield

    def folder(self, s: int) -> Path:
        """Where iteration s is kept."""
        assert self.out is not None
        return self.out / f"iteration-{s}"

    def trained(self, s: int, options: TrainOptions, beside: tuple[str, ...] = ()) -> bool:
        """Is the model of iteration s there, with the files `beside` it, and with what the next iteration goes on from?"""
        here = self.folder(s)
        if not (here / "model").is_dir() or not all((here / name).is_file() for name in beside):
            return False
        return not self._goes_on(s, options, beside) or self._optimiser(s).is_file()

    def _goes_on(self, s: int, options: TrainOptions, beside: tuple[str, ...]) -> bool:
        last = s >= iterations_of(options)
        return options.keep_optimiser and not last and not self.trained(s + 1, options, beside)

    def _optimiser(self, s: int) -> Path:
        where = self.out or self.states
        assert where is not None
        return where / f"iteration-{s}" / "optimiser.pt"

    def state(self, s: int, options: TrainOptions) -> State:
        """What iteration s takes of the optimiser before, and leaves for the next, where it is kept."""
        if not options.keep_optimiser:
            return FRESH
        before = self._optimiser(s - 1) if s > 1 else None
        return State(before, self._optimiser(s) if s < iterations_of(options) else None)

    def forget(self, s: int) -> None:
        """Removes the optimiser's state that iteration s began with, as its model is there."""
        if self.out or self.states:
            self._optimiser(s - 1).unlink(missing_ok=True)

    def run(self, s: int, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        """The judged run of an iteration: run.parquet, with the column `reward`."""
        import pandas as pd

        if self.out is None:
            return make()
        path = self.folder(s) / "run.parquet"
        done = path.is_file() and "reward" in (found := pd.read_parquet(path)).columns
        if done:
            return found
        write_parquet(make(), path)
        return pd.read_parquet(path)

    def lists(self, s: int, part: Task, make: Callable[[], tuple[pd.DataFrame, pd.DataFrame]]) -> pd.DataFrame:
        """The lists of an iteration (lists.parquet); `make` gives them, and the prompts without one (skipped.csv).

        Raises NothingToRank if there is none.
        """
        import pandas as pd

        if self.out is None:
            found, without = make()
        else:
            path, skipped = self.folder(s) / "lists.parquet", self.folder(s) / "skipped.csv"
            trained = (self.folder(s) / "model").is_dir()
            if trained and path.is_file() and skipped.is_file():
                return pd.read_parquet(path)
            if path.is_file() and skipped.is_file():
                self.say(f"iteration {s}: reused the lists in {path}")
            else:
                found, without = make()
                if not skipped.is_file():  # training adds to it, so it is to be made with it
                    (self.folder(s) / "account.json").unlink(missing_ok=True)
                    write_csv(without, skipped)
                write_parquet(found, path)
            found, without = pd.read_parquet(path), read_skipped(self.folder(s))
        if found.empty:
            why = in_words(without["why"])
            raise NothingToRank(f"iteration {s}: none of {len(part.topics):,} prompts gives a list to rank: {why}")
        used, count = found["query_id"].nunique(), len(found.groupby(["query_id", "list"]))
        others = in_words(without["why"], FAULTS)
        others = f" (the others, see skipped.csv: {others})" if others else ""
        self.say(f"iteration {s}: {count:,} lists from {used:,} of {len(part.topics):,} prompts{others}")
        return found


def read_skipped(folder: Path) -> pd.DataFrame:
    """query_id and why of an iteration's prompts without a list; none where an older version did not keep them."""
    import pandas as pd

    path = folder / "skipped.csv"
    if not path.is_file():
        return pd.DataFrame(columns=["query_id", "why"])
    return pd.read_csv(path, dtype=str, keep_default_na=False)
