"""`facts`: a generated retrieval collection, 2,000 passages about invented people, towns, firms, rivers and novels.

A passage states four facts about one entity; an entity has up to three passages, and each fact stands in one of them
only. A question asks for one fact: in the words of its passage, or in other words (`asks[1]`, none of them in the
passage but the name). Surnames, towns and trades are shared, so the wrong passages look right.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from irlens.tables import check
from irlens.tasks import Task, pick_split, query_id

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


def _facts(*rows: tuple[str, str, str, str, str]) -> tuple[Fact, ...]:
    return tuple(Fact(answer, says, (plain, other), reply) for answer, says, plain, other, reply in rows)


# Each entry is one passage. {name} is the entity, {ref} what the question calls it, {he} and {his} go by the person.
PASSAGES: dict[str, tuple[tuple[Fact, ...], ...]] = {
    "person": (
        _facts(
            (
                "town",
                "The {trade} {name} was born in {town} in {year}.",
                "In which town was {name} born?",
                "Where did {ref} first see the light of day?",
                "{name} was born in {town}.",
            ),
            (
                "parent",
                "{His} father was a {parent}.",
                "What was the father of {name}?",
                "How did the dad of {ref} earn a living?",
                "The father of {name} was a {parent}.",
            ),
            (
                "subject",
                "At school {he} studied {subject}.",
                "What did {name} study at school?",
                "Which lessons did {ref} take as a pupil?",
                "At school {name} studied {subject}.",
            ),
            (
                "instrument",
                "As a child {he} played the {instrument}.",
                "What did {name} play as a child?",
                "With what did {ref} make music when young?",
                "As a child {name} played the {instrument}.",
            ),
        ),
        _facts(
            (
                "firm",
                "In {year} the {trade} {name} joined {firm}.",
                "What did {name} join in {year}?",
                "Who was the employer of {ref}?",
                "{name} joined {firm}.",
            ),
            (
                "invention",
                "There {he} invented the {invention}.",
                "What did {name} invent?",
                "Which device do we owe to {ref}?",
                "{name} invented the {invention}.",
            ),
            (
                "prize",
                "For this {he} won the {prize}.",
                "What did {name} win for the {invention}?",
                "What honour was bestowed on {ref}?",
                "{name} won the {prize}.",
            ),
            (
                "pupil",
                "Among {his} apprentices was {pupil}.",
                "Who was among the apprentices of {name}?",
                "Whom did {ref} teach?",
                "{pupil} was an apprentice of {name}.",
            ),
        ),
        _facts(
            (
                "spouse",
                "The {trade} {name} married {spouse} in {year}.",
                "Who married {name}?",
                "Who was the spouse of {ref}?",
                "{name} married {spouse}.",
            ),
            (
                "hobby",
                "In {his} free time {he} liked {hobby}.",
                "What did {name} like in free time?",
                "Which pastime gave {ref} pleasure?",
                "In free time {name} liked {hobby}.",
            ),
            (
                "house",
                "The family lived in a house called {house}.",
                "What was the house of the family of {name} called?",
                "Which residence did {ref} own?",
                "The family of {name} lived in a house called {house}.",
            ),
            (
                "town",
                "{He} died in {town} during a {weather}.",
                "In which town was it that {name} died?",
                "Where did {ref} pass away?",
                "{name} died in {town}.",
            ),
        ),
    ),
    "town": (
        _facts(
            (
                "river",
                "The town of {name} lies on the River {river}.",
                "On which river lies the town of {name}?",
                "What stream flows through {name}?",
                "{name} lies on the River {river}.",
            ),
            (
                "height",
                "It stands {height} metres above the sea.",
                "How many metres above the sea stands {name}?",
                "What is the elevation of {name}?",
                "{name} stands {height} metres above the sea.",
            ),
            (
                "people",
                "About {people} people live there.",
                "How many people live in {name}?",
                "What is the number of inhabitants of {name}?",
                "About {people} people live in {name}.",
            ),
            (
                "town",
                "A road leads over the hills to {town}.",
                "To which town leads the road from {name}?",
                "What place does the highway connect with {name}?",
                "The road leads from {name} to {town}.",
            ),
        ),
        _facts(
            (
                "industry",
                "Most families in {name} live from {industry}.",
                "What do most families in {name} live from?",
                "What is the chief occupation around {name}?",
                "Most families in {name} live from {industry}.",
            ),
            (
                "weekday",
                "The market is held every {weekday}.",
                "On which day is the market held in {name}?",
                "When do traders put up their stalls at {name}?",
                "The market of {name} is held every {weekday}.",
            ),
            (
                "dish",
                "Visitors are served {dish}.",
                "What are visitors served in {name}?",
                "Which speciality can guests taste at {name}?",
                "Visitors of {name} are served {dish}.",
            ),
            (
                "person",
                "The mayor is {person}, a friend of {friend}.",
                "Who is the mayor of {name}?",
                "Who governs {name}?",
                "The mayor of {name} is {person}.",
            ),
        ),
        _facts(
            (
                "animal",
                "On the square of {name} stands a statue of a {animal}.",
                "What does the statue on the square of {name} show?",
                "Which creature has a monument at {name}?",
                "The statue on the square of {name} is of a {animal}.",
            ),
            (
                "person",
                "The church tower was built by {person}.",
                "Who built the church tower of {name}?",
                "Which architect designed the steeple at {name}?",
                "The church tower of {name} was built by {person}.",
            ),
            (
                "month",
                "In {month} there is a feast with a race of {toys}.",
                "In which month is the feast in {name}?",
                "When are the annual festivities at {name}?",
                "The feast of {name} is in {month}.",
            ),
            (
                "things",
                "The museum shows {things}.",
                "What does the museum of {name} show?",
                "What is on display for curious tourists at {name}?",
                "The museum of {name} shows {things}.",
            ),
        ),
    ),
    "firm": (
        _facts(
            (
                "person",
                "{name} was founded by {person} in {year}.",
                "Who founded {name}?",
                "Who set up {name}?",
                "{name} was founded by {person}.",
            ),
            (
                "town",
                "The first workshop stood in {town}.",
                "In which town stood the first workshop of {name}?",
                "Where did {name} begin?",
                "The first workshop of {name} stood in {town}.",
            ),
            (
                "goods",
                "It made {goods}.",
                "What was made by {name}?",
                "Which products could one buy from {name}?",
                "{name} made {goods}.",
            ),
            (
                "animal",
                "A {animal} was painted over the door.",
                "What was painted over the door of {name}?",
                "Which logo did {name} use?",
                "Over the door of {name} was painted a {animal}.",
            ),
        ),
        _facts(
            (
                "workers",
                "By {year} {name} had {workers} workers.",
                "How many workers had {name} by {year}?",
                "How big was the staff of {name}?",
                "{name} had {workers} workers.",
            ),
            (
                "person",
                "{person} was its director at the time.",
                "Who was the director of {name}?",
                "Who was the boss at {name}?",
                "The director of {name} was {person}.",
            ),
            (
                "weather",
                "The old mill was lost in a {weather}.",
                "In what was the old mill of {name} lost?",
                "Which disaster struck {name}?",
                "The old mill of {name} was lost in a {weather}.",
            ),
            (
                "firm",
                "In the end it was sold to {firm}.",
                "To what firm was {name} sold in the end?",
                "Who took over {name}?",
                "{name} was sold to {firm}.",
            ),
        ),
    ),
    "river": (
        _facts(
            (
                "hill",
                "The River {name} rises in the {hill} Hills.",
                "In which hills rises the River {name}?",
                "Where is the source of the {name}?",
                "The River {name} rises in the {hill} Hills.",
            ),
            (
                "length",
                "It is {length} kilometres long.",
                "How many kilometres long is the River {name}?",
                "What distance does the {name} cover?",
                "The River {name} is {length} kilometres long.",
            ),
            (
                "river",
                "It ends in the River {river}.",
                "In which river ends the River {name}?",
                "Into what does the {name} flow?",
                "The River {name} ends in the River {river}.",
            ),
            (
                "colour",
                "After rain its water turns {colour}.",
                "What does the River {name} turn after rain?",
                "Which colour has the {name} in wet weather?",
                "After rain the water of the River {name} turns {colour}.",
            ),
        ),
        _facts(
            (
                "animal",
                "Along the River {name} one can meet the {animal}.",
                "What can one meet along the River {name}?",
                "Which wild creature inhabits the banks of the {name}?",
                "Along the River {name} one can meet the {animal}.",
            ),
            (
                "person",
                "The stone bridge was planned by {person}.",
                "Who planned the bridge over the River {name}?",
                "Which engineer designed the crossing of the {name}?",
                "The bridge was planned by {person}.",
            ),
            (
                "town",
                "A ferry runs near {town}.",
                "Near which town does the ferry run on the River {name}?",
                "Where can passengers take a boat across the {name}?",
                "The ferry on the River {name} runs near {town}.",
            ),
            (
                "goods",
                "Barges carry {goods} to the coast.",
                "What do barges carry on the River {name}?",
                "Which cargo is shipped down the {name}?",
                "Barges on the River {name} carry {goods}.",
            ),
        ),
    ),
    "novel": (
        _facts(
            (
                "person",
                "{name} is a novel by {person}.",
                "Who is the novel {name} by?",
                "Which author wrote {name}?",
                "{name} is a novel by {person}.",
            ),
            (
                "hero",
                "It tells the story of {hero}, a {trade}.",
                "Of whom does {name} tell the story?",
                "Who is the main character in {name}?",
                "{name} tells the story of {hero}.",
            ),
            (
                "town",
                "It was printed in {town} in {year}.",
                "In which town was {name} printed?",
                "Where was {name} published?",
                "{name} was printed in {town}.",
            ),
            (
                "invention",
                "The last page has a drawing of a {invention}.",
                "Of what is the drawing on the last page of {name}?",
                "What picture closes {name}?",
                "The last page of {name} has a drawing of a {invention}.",
            ),
        ),
    ),
}

TRADES = {  # as the passages say it: as a question can put it
    "botanist": "plant collector",
    "clockmaker": "horologist",
    "surgeon": "hospital doctor",
    "sculptor": "carver of marble",
    "cartographer": "drawer of maps",
    "weaver": "producer of cloth",
    "locksmith": "key cutter",
    "ropemaker": "twister of cords",
    "geologist": "collector of rocks",
    "brewer": "beer producer",
    "glazier": "window fitter",
    "linguist": "expert on languages",
    "tanner": "leather crafter",
    "shipwright": "boat builder",
    "potter": "shaper of clay",
    "bookbinder": "repairer of volumes",
    "chemist": "laboratory scientist",
    "goldsmith": "jeweller",
    "beekeeper": "honey producer",
    "miller": "grinder of grain",
}
WORDS = {
    slot: words.split("|")
    for slot, words in {
        "parent": "farmer|fisherman|carpenter|baker|tailor|shepherd|postman|blacksmith|gardener|cobbler",
        "subject": "geometry|logic|law|history|medicine|painting|theology|rhetoric|navigation|bookkeeping",
        "instrument": "fiddle|trumpet|harp|cello|bassoon|lute|zither|drum|piccolo|mandolin",
        "hobby": "chess|skating|fencing|bird watching|pressing flowers|solving riddles|mountain walks|card games",
        "weather": "storm|flood|blizzard|heatwave|drought|hailstorm|landslide",
        "industry": "salt mining|cheese making|pearl fishing|charcoal burning|paper milling|apple growing|wool",
        "weekday": "Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday",
        "dish": "smoked eel|barley soup|plum dumplings|roast goose|pickled beets|chestnut cake|nettle pie",
        "animal": "heron|badger|lynx|stork|salamander|beaver|swan|wolf|raven|mole",
        "month": "January|February|March|April|May|June|July|August|September|October|November|December",
        "toys": "kites|carts|rafts|sledges|hoops|barrels",
        "things": "fossils|masks|music boxes|whale bones|butterflies|medals|puppets|lace|meteorites|coins",
        "goods": "soap|lanterns|saddles|bricks|candles|umbrellas|mirrors|kettles|carpets|ink|matches|barometers",
        "colour": "brown|green|yellow|red|grey|white|blue|purple",
    }.items()
}
DEVICES = ("pump", "loom", "lamp", "valve", "press", "compass", "stove", "whistle", "scale", "plough")
KINDS = ("folding", "double", "silent", "floating", "reverse", "magnetic", "spiral", "portable", "tidal", "twin")
HONOURS = ("Medal", "Ribbon", "Cup", "Star", "Laurel", "Chain")
FIRMS = ("{} Works", "{} and Sons", "{} Brothers", "{} Trading House", "{} Foundry")
NOVELS = ("The {} Letters", "Winter in {}", "A Guest from {}", "The Clock of {}", "{} at Dusk", "Farewell to {}")
ONSETS = (
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
)
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
