"""`facts`: a generated retrieval collection, 2,000 passages about invented people, towns, firms, rivers and novels.

A passage states four facts about one entity; an entity has up to three passages, and each fact stands in one of them
only. A question asks for one fact: in the words of its passage, or in other words (`asks[1]`, none of them in the
passage but the name). Surnames, towns and trades are shared, so the wrong passages look right.
"""

from __future__ import annotations

import random
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources

import pandas as pd

from irlens.tables import check
from irlens.tasks.contract import Task, pick_split, query_id

SPLITS = {"test": (0, 500), "validation": (500, 750)}  # places among the shuffled facts
COUNTS = {"person": 400, "town": 100, "firm": 120, "river": 80, "novel": 100}
SURNAMES, FIRST_NAMES = 40, 60
SHORT = 0.6  # share of the other-words questions about people that give the surname and a paraphrase of the trade


@dataclass(frozen=True)
class Fact:
    """One fact: the slot that holds the answer, the sentence, the question in its words and in others, the reply."""

    answer: str
    says: str
    asks: tuple[str, str]
    reply: str


WORDING = tomllib.loads((resources.files("irlens.tasks") / "facts.toml").read_text(encoding="utf-8"))
PASSAGES: dict[str, tuple[tuple[Fact, ...], ...]] = {
    kind: tuple(
        tuple(Fact(answer, says, (plain, other), reply) for answer, says, plain, other, reply in p) for p in some
    )
    for kind, some in WORDING["passages"].items()
}
TRADES: dict[str, str] = WORDING["trades"]  # as the passages say it: as a question can put it
WORDS: dict[str, list[str]] = WORDING["words"]
DEVICES = ("pump", "loom", "lamp", "valve", "press", "compass", "stove", "whistle", "scale", "plough")
KINDS = ("folding", "double", "silent", "floating", "reverse", "magnetic", "spiral", "portable", "tidal", "twin")
HONOURS = ("Medal", "Ribbon", "Cup", "Star", "Laurel", "Chain")
FIRMS = ("{} Works", "{} and Sons", "{} Brothers", "{} Trading House", "{} Foundry")
NOVELS = ("The {} Letters", "Winter in {}", "A Guest from {}", "The Clock of {}", "{} at Dusk", "Farewell to {}")
ONSETS = [
    "b",
    "br",
    "d",
    "dr",
    "f",
    "fl",
    "g",
    "gr",
    "h",
    "j",
    "k",
    "kl",
    "l",
    "m",
    "n",
    "p",
    "pr",
    "r",
    "s",
    "sk",
    "st",
    "t",
    "tr",
    "v",
    "w",
    "z",
]
VOWELS = ("a", "e", "i", "o", "u", "ae", "ei", "ou")
CODAS = ("l", "n", "r", "s", "m", "th", "nd", "rk", "lt", "sk")
ENDINGS = {
    "first": ("a", "o", "i", "en", "ric"),
    "surname": ("er", "ing", "ov", "ak", "ley", "ani"),
    "town": ("bury", "ford", "mouth", "dale", "stad", "wick"),
    "river": ("a", "e", "en", "is"),
    "hill": ("or", "um", "ay"),
}


class _World:
    """The generator's state: random numbers, the names used so far, and the entities of each kind."""

    def __init__(self, seed: int):
        self.rng = random.Random(f"facts:{seed}")
        self.used: set[str] = set()
        self.surnames = [self._word("surname") for _ in range(SURNAMES)]
        self.first_names = [self._word("first") for _ in range(FIRST_NAMES)]
        self.names: dict[str, list[str]] = {"town": self._many("town"), "river": self._many("river")}
        self.names["person"] = self._unique(COUNTS["person"], self._full_name)
        places = [*self.surnames, *self.names["town"]]
        self.names["firm"] = self._unique(COUNTS["firm"], lambda: self._pick(FIRMS).format(self._pick(places)))
        self.names["novel"] = self._unique(COUNTS["novel"], lambda: self._pick(NOVELS).format(self._pick(places)))
        self.hills = [self._word("hill") for _ in range(20)]

    def _pick(self, choices):
        return self.rng.choice(choices)

    def _word(self, kind: str) -> str:
        return self._unique(1, lambda: self._stem().capitalize() + self._pick(ENDINGS[kind]))[0]

    def _stem(self) -> str:
        syllables = 2 if self.rng.random() < 0.3 else 1
        return "".join(self._pick(ONSETS) + self._pick(VOWELS) for _ in range(syllables)) + self._pick(CODAS)

    def _many(self, kind: str) -> list[str]:
        return [self._word(kind) for _ in range(COUNTS[kind])]

    def _full_name(self) -> str:
        return f"{self._pick(self.first_names)} {self._pick(self.surnames)}"

    def _strangers(self, name: str) -> Iterator[str]:
        while True:
            if (stranger := self._full_name()) != name:
                yield stranger

    def _unique(self, count: int, make) -> list[str]:
        found = []
        while len(found) < count:
            name = make()
            if name not in self.used:
                self.used.add(name)
                found.append(name)
        return found

    def slots(self, kind: str, name: str) -> dict[str, str]:
        """Everything that the sentences of one passage about `name` can mention, drawn anew."""
        number = self.rng.randint
        return {
            **{slot: self._pick(words) for slot, words in WORDS.items()},
            **{slot: self._pick([n for n in names if n != name]) for slot, names in self.names.items()},
            **dict(zip(("pupil", "spouse", "hero", "friend"), self._strangers(name))),
            "name": name,
            "year": str(number(1780, 1960)),
            "height": str(number(12, 980)),
            "people": f"{number(12, 480) * 100:,}",
            "workers": str(number(20, 900)),
            "length": str(number(30, 700)),
            "hill": self._pick(self.hills),
            "house": f"{self._pick(self.hills)} {self._pick(('Lodge', 'Cottage', 'Manor', 'Hall'))}",
            "invention": f"{self._pick(KINDS)} {self._pick(DEVICES)}",
            "prize": f"{self._pick(KINDS).capitalize()} {self._pick(HONOURS)}",
            "trade": self._pick(list(TRADES)),
        }


def collection(seed: int = 0) -> tuple[pd.DataFrame, list[dict]]:
    """The corpus, and one question for every fact in it, shuffled: query, answer, solution, doc_id, other_words."""
    world = _World(seed)
    passages, questions = [], []
    for kind, names in world.names.items():
        for name in names:
            trade, male = world._pick(list(TRADES)), world.rng.random() < 0.5
            for facts in PASSAGES[kind]:
                slots = world.slots(kind, name)
                if kind == "person":
                    slots |= {"trade": trade} | dict(zip(("he", "his"), ("he", "his") if male else ("she", "her")))
                    slots |= {"He": slots["he"].capitalize(), "His": slots["his"].capitalize()}
                passages.append((name, " ".join(fact.says.format(**slots) for fact in facts)))
                questions += [(len(passages) - 1, kind, fact, slots) for fact in facts]
    order = list(range(len(passages)))  # so that an identifier says nothing of what the passage is about
    world.rng.shuffle(order)
    ids = [f"d{place:04d}" for place in order]
    corpus = pd.DataFrame(
        [(ids[i], text, title) for i, (title, text) in enumerate(passages)], columns=["doc_id", "text", "title"]
    ).sort_values("doc_id", ignore_index=True)
    return corpus, list(_ask(world, questions, ids))


def _ask(world: _World, questions: list[tuple], ids: list[str]) -> Iterator[dict]:
    """The shuffled questions, every other one in other words; a surname and a trade stand for one person only."""
    owners: dict[tuple[str, str], set[str]] = {}
    for _, kind, _, slots in questions:
        if kind == "person":
            owners.setdefault((slots["name"].split()[1], slots["trade"]), set()).add(slots["name"])
    world.rng.shuffle(questions)
    for i, (passage, kind, fact, slots) in enumerate(questions):
        reference, other = slots["name"], i % 2 == 1
        surname = reference.split()[-1]
        if other and kind == "person" and world.rng.random() < SHORT and len(owners[surname, slots["trade"]]) == 1:
            reference = f"{surname}, the {TRADES[slots['trade']]},"
        query = fact.asks[other].format(**slots, ref=reference).replace(",?", "?")
        yield {
            "query": query,
            "answer": slots[fact.answer],
            "solution": fact.reply.format(**slots),
            "doc_id": ids[passage],
            "other_words": other,
        }


def load(split: str | None = None, limit: int | None = None, seed: int = 0) -> Task:
    """The first `limit` questions of a split, each with its one gold passage, and the whole corpus."""
    split = pick_split(split, SPLITS, "facts")
    corpus, questions = collection(seed)
    start, end = SPLITS[split]
    rows = questions[start:end][:limit]
    ids = [query_id("facts", split, i) for i in range(len(rows))]
    topics = pd.DataFrame(
        {
            "query_id": ids,
            "query": [row["query"] for row in rows],
            "answers": [[row["answer"]] for row in rows],
            "solution": [row["solution"] for row in rows],
        }
    )
    qrels = pd.DataFrame({"query_id": ids, "doc_id": [row["doc_id"] for row in rows], "relevance": 1})
    return Task(
        "facts",
        split,
        check(topics, "topics"),
        corpus=check(corpus, "corpus"),
        qrels=check(qrels, "qrels"),
        unrelated="sums",
        revision=f"generated, seed {seed}",
    )
