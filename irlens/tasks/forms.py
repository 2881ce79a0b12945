"""Which form of data has which keys, and how rows of it become a task: the first form that fits the first row counts."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from irlens.base.errors import UserError, did_you_mean
from irlens.tasks import conversations
from irlens.tasks.contract import CHAT_PROMPT, Task, query_id
from irlens.tasks.rows import Placed

ANSWERS = ("answer", "answers")
OTHERS = ("solution", "chosen", "rejected", "completion", "label", "candidates")
NAMES = (*conversations.PROMPTS, *ANSWERS, *OTHERS, "id")  # what --columns may map; `id` becomes the query_id


@dataclass(frozen=True)
class Rows:
    """Rows and where they are from: the data set's name and split, its revision, and what messages call it."""

    rows: Iterator[Placed]
    name: str
    split: str
    revision: str
    called: str
    limit: int | None = None


@dataclass(frozen=True)
class Form:
    """A form of data: what it is called, whether a row has its keys, and the task of such rows."""

    name: str
    fits: Callable[[dict], bool]
    task: Callable[[Rows], Task]


def task_of(given: Rows, columns: str | Mapping[str, str] | None = None) -> Task:
    """The task of some rows. columns: which of theirs stand for NAMES, such as `prompt=instruction,answer=output`.

    Raises UserError: no rows, a column that is not there, rows of no form that is known, a row that its form refuses.
    """
    mapped = parse_columns(columns)
    rows = iter(given.rows)
    if (first := next(rows, None)) is None:
        raise UserError(f"{given.called}: no rows")
    check_columns(mapped, first[1], given.called)
    rows = ((where, _renamed(row, mapped, where)) for where, row in itertools.chain([first], rows))
    where, row = next(rows)
    form = next((form for form in FORMS if form.fits(row)), None)
    if form is None:
        found = ", ".join(map(str, first[1])) or "nothing"
        raise UserError(
            f"{given.called}: rows need prompt, messages, question or problem (or chosen and rejected); the first has: "
            f"{found}; say which is which: --columns prompt=COLUMN,answer=COLUMN"
        )
    return form.task(replace(given, rows=itertools.chain([(where, row)], rows)))


# -- columns -------------------------------------------------------------------------------------------------------


def parse_columns(columns: str | Mapping[str, str] | None, names: Sequence[str] = NAMES) -> dict[str, str]:
    """{our name: theirs}. Raises UserError for what is not of the form NAME=COLUMN,…, or a name that is none of `names`."""
    if columns is None:
        return {}
    if isinstance(columns, str):
        pairs = [part.partition("=") for part in columns.split(",")]
        if not all(equals and name.strip() and column.strip() for name, equals, column in pairs):
            raise UserError(f"--columns {columns!r}: expected NAME=COLUMN,…, such as prompt=instruction,answer=output")
        found = {name.strip(): column.strip() for name, _, column in pairs}
        if len(found) < len(pairs):
            raise UserError(f"--columns {columns!r}: give each name once")
    else:
        found = dict(columns)
    for name in found:
        if name not in names:
            raise UserError(f"--columns {name}=…: {did_you_mean(name, names)}")
    return found


def check_columns(mapped: dict[str, str], row: dict, called: str) -> None:
    """Raises UserError for a column that is mapped and that this row of the file, or data set, does not have."""
    for name, column in mapped.items():
        if column not in row:
            raise UserError(f"{called}: --columns {name}={column}: no such column; {did_you_mean(column, row)}")


def _renamed(row: dict, mapped: dict[str, str], where: str) -> dict:
    """A row by our names: those of its own in any case of letters, and what `mapped` says in the place of its kind."""
    found = {name.lower(): value for name, value in row.items() if isinstance(name, str)} | row
    if not mapped:
        return found
    for kind in (conversations.PROMPTS, ANSWERS):
        if any(name in mapped for name in kind):
            found = {name: value for name, value in found.items() if name not in kind}
    for name, column in mapped.items():
        if column not in row:
            raise UserError(f"{where}: no column {column}, which --columns {name}={column} names")
        found["query_id" if name == "id" else name] = row[column]
    return found


# -- topics --------------------------------------------------------------------------------------------------------


@dataclass
class Topics:
    """What is gathered of rows, a list per column; `unused` counts what the rows hold beside prompts and answers."""

    query_ids: list[str] = field(default_factory=list)
    messages: list[list[dict]] = field(default_factory=list)
    answers: list[list[str]] = field(default_factory=list)
    solutions: list[str | None] = field(default_factory=list)
    places: dict[str, str] = field(default_factory=dict)  # query_id → where it stands
    unused: int = 0  # responses that follow the prompts

    def add(self, row: dict, place: str, key: str, asked: tuple[list[dict], bool]) -> None:
        """Takes a row whose conversation was read already, under its own identifier or `key`."""
        key = _own_id(row, place) or key
        if key in self.places:
            raise UserError(f"{place}: query_id {key} is that of {self.places[key]} already")
        self.places[key] = place
        self.query_ids.append(key)
        self.messages.append(asked[0])
        self.answers.append(_answers(row, place))
        self.solutions.append(row["solution"] if isinstance(row.get("solution"), str) else None)
        self.unused += asked[1]


def _own_id(row: dict, place: str) -> str | None:
    """The identifier that a row brings. Raises UserError for one that is none."""
    if "query_id" not in row:
        return None
    found = row["query_id"]
    if isinstance(found, bool) or not isinstance(found, (str, int)) or found == "":
        raise UserError(f"{place}: query_id must be a text or a whole number, got {found!r:.80}")
    return str(found)


def _answers(row: dict, place: str) -> list[str]:
    """The right answers of a row; none where it has no such key. Raises UserError for what cannot be one."""
    name = next((name for name in ANSWERS if name in row), None)
    if name is None:
        return []
    found = row[name] if isinstance(row[name], list) else [row[name]]
    for one in found:
        if (
            isinstance(one, bool)
            or not isinstance(one, (str, int, float))
            or (isinstance(one, str) and not one.strip())
        ):
            raise UserError(f"{place}: {name} must be a text, a number or a list of these, got {row[name]!r:.80}")
    if not found:
        raise UserError(f"{place}: {name} is an empty list")
    return [f"{one:.15g}" if isinstance(one, float) else str(one) for one in found]


def _gather(given: Rows, keys: tuple[str, ...] = (), unused: str = "{} responses that follow the prompts") -> Task:
    """Prompts with whatever else is told of them. keys: of responses, which every row must have; rows of one prompt are
    one topic then. unused: what the rows hold beside, with {} for how many."""
    import pandas as pd

    from irlens.tables import check

    topics, known, read, fields = Topics(), set(), 0, None
    for i, (place, row) in enumerate(given.rows):
        if len(topics.query_ids) == given.limit and not keys:
            break
        if missing := [key for key in keys if row.get(key) is None]:
            raise UserError(f"{place}: no {missing[0]} (found: {', '.join(map(str, row)) or 'nothing'})")
        fields = conversations.fields_of(row) if fields is None else fields
        asked = conversations.of_row(row, place, fields)
        said = json.dumps(asked[0]) if keys else ""
        if said not in known:
            if len(topics.query_ids) == given.limit:
                break
            topics.add(row, place, query_id(given.name, given.split, i), asked)
            known |= {said} if keys else set()
        read += 1
    queries = [messages[-1]["content"] for messages in topics.messages]
    frame = pd.DataFrame({"query_id": topics.query_ids, "query": queries}, dtype=object)
    with_answers = any(topics.answers)
    if with_answers:
        if not all(topics.answers):
            first = topics.query_ids[[bool(some) for some in topics.answers].index(False)]
            raise UserError(f"{topics.places[first]}: no answer, which other rows have")
        frame["answers"] = topics.answers
    if not with_answers or any(len(messages) > 1 for messages in topics.messages):
        frame["messages"] = topics.messages
    if all(topics.solutions):
        frame["solution"] = topics.solutions
    count = read if keys else topics.unused
    task = Task(given.name, given.split, check(frame, "topics", given.called), revision=given.revision)
    chat = CHAT_PROMPT if "messages" in frame.columns else None
    return replace(task, max_prompt_length=chat, unused=unused.format(f"{count:,}") if count else "")


# -- the forms -----------------------------------------------------------------------------------------------------


def _has(*names: str) -> Callable[[dict], bool]:
    return lambda row: all(name in row for name in names)


def _is_gsm8k(row: dict) -> bool:
    return "question" in row and isinstance(row.get("answer"), str) and "####" in row["answer"]


def _is_math(row: dict) -> bool:
    return "problem" in row and ("solution" in row or "answer" in row)


def _of_gsm8k(given: Rows) -> Task:
    from irlens.tasks import gsm8k

    return gsm8k.from_rows(given.rows, given.name, given.split, given.limit, given.revision, given.called)


def _of_math(given: Rows) -> Task:
    from irlens.tasks import math

    return math.from_rows(given.rows, given.name, given.split, given.limit, given.revision, given.called)


def _of_alpaca(given: Rows) -> Task:
    from irlens.tasks import alpaca

    return alpaca.from_rows(given.rows, given.name, given.split, given.limit, given.revision, given.called)


def _of_pairs(given: Rows) -> Task:
    return _gather(given, ("chosen", "rejected"), "{} preference pairs")


def _of_judged(given: Rows) -> Task:
    return _gather(given, ("completion", "label"), "{} judged completions")


def _of_completions(given: Rows) -> Task:
    return _gather(given, ("completion",), "{} completions")


def _of_turns(given: Rows) -> Task:
    return _gather(replace(given, rows=((place, _first_turn(row, place)) for place, row in given.rows)))


def _first_turn(row: dict, place: str) -> dict:
    """A row of `question_id, turns` as a prompt. Raises UserError for turns that are no texts."""
    turns = row.get("turns")
    if not isinstance(turns, list) or not turns or not isinstance(turns[0], str):
        raise UserError(f"{place}: turns must be a list of texts, got {turns!r:.80}")
    return {"query_id": row.get("question_id"), "prompt": turns[0]}


def _prompted(row: dict) -> bool:
    return any(name in row for name in conversations.PROMPTS)


FORMS = (
    Form("graded responses of several systems, as AlpacaEval", _has("prompt", "candidates"), _of_alpaca),
    Form("preference pairs, as TRL", _has("chosen", "rejected"), _of_pairs),
    Form("judged completions, as TRL's KTO", _has("prompt", "completion", "label"), _of_judged),
    Form("prompts with a completion", _has("prompt", "completion"), _of_completions),
    Form("problems with answers, as GSM8K", _is_gsm8k, _of_gsm8k),
    Form("competition problems, as MATH, MATH-500 and AIME", _is_math, _of_math),
    Form("prompts, or questions with answers", _prompted, _gather),
    Form("questions of several turns, as MT-Bench: the first turns", _has("question_id", "turns"), _of_turns),
)
