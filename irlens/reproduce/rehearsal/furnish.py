"""The stand-ins that a rehearsal needs: which models its steps name, where each comes from, and the making of them."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from irlens.base.errors import UserError
from irlens.models import catalog, hub
from irlens.models.stand_in_families import FAMILIES
from irlens.reproduce import chat
from irlens.reproduce.records import Step
from irlens.rerank import judge_names
from irlens.tasks.contract import UNSAFE

EMBEDDED = (*catalog.EMBEDDED, "bm25", "random")
TAUGHT, LONGEST = 24, 300  # prompts that a policy is taught to answer, of at most so many tokens
LARGE = 2 << 20  # bytes of a BEIR corpus that is encoded whole
STEPS, MANY, BY_HEART = (
    40,
    200,
    12,
)  # of teaching: a few answers; or, where they are many, those of so many prompts by heart
ANSWERS = ("{words}\n#### {gold}", "{words} \\boxed{{{gold}}}", "{gold}", "{words} {gold}")  # forms that verifiers read


@dataclass(frozen=True)
class Model:
    """A model that steps name as `name` in a role. source: a folder, or a repository of FAMILIES; own: the name is that of
    a folder, in whose place steps get the stand-in's."""

    name: str
    role: str
    repo: str
    source: Path | str
    own: bool

    @property
    def origin(self) -> str:
        """Where its architecture and tokenizer come from, in words."""
        if isinstance(self.source, str):
            return f"{self.repo}: {FAMILIES[self.source].config.removesuffix('Config')} as published, its tokenizer learnt here"
        return (
            f"{self.name}: from its own config.json" if self.own else f"{self.repo}: from its files in the hub's cache"
        )


# -- what is needed ------------------------------------------------------------------------------------------------


def models(steps: Iterable[Step]) -> list[Model]:
    """Every model that needs a stand-in, once for each role. Raises UserError, naming the step, for one that is not to be
    had: no folder, no config.json, an architecture that transformers does not know, a hub id that nothing is known of."""
    from irlens.models.stand_ins import config_of

    found: dict[tuple[str, str], Model] = {}
    for step in steps:
        for name, role in named(step):
            try:
                made = _model(name, role)
                if made is not None and (name, made.role) not in found:
                    config_of(made.source)
                    found[name, made.role] = made
            except UserError as error:
                raise UserError(f"{step.name}: {error}") from error
    return list(found.values())


def named(step: Step) -> Iterator[tuple[str, str]]:
    """(name, role) of the models in a step's settings."""
    settings = step.settings
    for key, role in (("model", "policy"), ("policy", "policy"), ("reward", "reward"), ("eval_reward", "reward")):
        if isinstance(name := getattr(settings, key, None), str) and not name.startswith("@"):
            yield name, role
    for name in str(getattr(settings, "retriever", "")).split(","):
        yield name, "encoder"
    for key in ("encoder", "related"):
        yield str(getattr(settings, key, None) or ""), "encoder"
    if step.stage == "winrate" and settings.judge and not here_alone(settings.judge):
        yield from _reranker(judge_names.reranker_name(settings.judge), step.stage)
    for name in str(getattr(settings, "reranker", None) or "").split(","):
        yield from _reranker(name.removeprefix("vote:"), step.stage)


def here_alone(judge: str | None) -> bool:
    """Whether a judge of win rates has no stand-in: annotations of other answers, a chat model, whose stand-in does not
    answer."""
    return bool(judge) and (judge_names.reranker_name(judge).startswith("judge:") or Path(judge).is_file())


def _reranker(name: str, stage: str) -> Iterator[tuple[str, str]]:
    kind, colon, argument = name.partition(":")
    if stage == "recall":
        yield name, "cross-encoder"
    elif colon and kind in ("reward", "cross-encoder"):
        yield argument, kind
    elif name in catalog.REWARDS or "/" in name or Path(name).is_dir():
        yield name, "reward"


def _model(name: str, role: str) -> Model | None:
    """What stands behind a name; None for what is embedded, and for what is no model."""
    if not name or name in EMBEDDED:
        return None
    if role == "policy":
        entry = catalog.model(name)
    elif role == "encoder":
        entry = catalog.encoder(name)
    elif role == "cross-encoder":
        folder = Path(name).expanduser()
        where = (str(folder.resolve()), None) if folder.is_dir() else hub.pinned(name, "--reranker")
        entry = catalog.Reward(name, *where)
    elif (entry := catalog.reward(name)) is None:
        return None
    if getattr(entry, "form", "") == "pairrm":
        return Model(name, "pairrm", entry.repo, "llm-blender/PairRM", Path(entry.repo).is_dir())
    if Path(entry.repo).is_dir():
        return Model(name, role, entry.repo, Path(entry.repo), True)
    if (cached := hub.small_files(entry.repo, entry.revision)) is not None:
        return Model(name, role, entry.repo, cached, False)
    if entry.repo in FAMILIES:
        return Model(name, role, entry.repo, entry.repo, False)
    return Model(name, role, entry.repo, catalog.fetch(entry, weights=False), False)


def replaced(step: Step, places: dict[str, str]) -> Step:
    """The step with other folders in the place of own ones. places: name → folder."""
    new = {}
    for f in fields(step.settings):
        value = getattr(step.settings, f.name)
        if f.name in ("retriever", "reranker", "judge") and isinstance(value, str):
            parts = [_placed(part, places) for part in value.split(",")]
            new[f.name] = ",".join(parts)
        elif isinstance(value, str) and f.name in ("model", "policy", "reward", "eval_reward", "encoder", "related"):
            new[f.name] = places.get(value, value)
    return replace(step, settings=replace(step.settings, **new))


def _placed(name: str, places: dict[str, str]) -> str:
    """`vote:reward:FOLDER` with the folder's stand-in."""
    head, colon, tail = name.rpartition(":")
    return f"{head}{colon}{places.get(tail, tail)}"


# -- data ----------------------------------------------------------------------------------------------------------


def data(steps: Sequence[Step], home: Path) -> list[Step]:
    """Writes the data sets' stand-ins under `home`. Returns the steps with those that are named by a path or an identifier
    in the place of the real ones."""
    from irlens.tasks import beir, stand_ins

    stand_ins.write_hub(home)
    places: dict[str, str] = {}
    for step in steps:
        name = getattr(step.settings, "dataset", None)
        path = Path(name or "").expanduser()
        if name == "nq":
            stand_ins.write_nq(home / "ir_datasets")
        elif not name or name in places:
            continue
        elif mixeval(step.settings):
            places[name] = str(home / "data" / "mixeval-stand-in")
            stand_ins.write_mixeval(Path(places[name]))
        elif made_up(name):
            places[name] = str(home / "data" / UNSAFE.sub("-", name))
            stand_ins.write_beir(Path(places[name]), getattr(step.settings, "split", None) or "test")
        elif path.exists() and not (path.is_dir() and beir.is_folder(path)):
            folder = path if path.is_dir() else path.parent
            if copy := stand_ins.with_few_answers(path, home / "data" / (folder.resolve().name or "data")):
                places[name] = str(copy)
    return [_with(step, dataset=places.get(getattr(step.settings, "dataset", None))) for step in steps]


def mixeval(settings: object) -> bool:
    """Whether a step reads MixEval: a folder of it, or the one that the user is to name."""
    from irlens.tasks import mixeval as benchmark

    name = getattr(settings, "dataset", None)
    return name == chat.MIXEVAL or bool(name and benchmark.is_folder(Path(benchmark.place(name)).expanduser()))


def made_up(dataset: str) -> bool:
    """Whether a data set is one whose place a made-up BEIR folder takes: another collection of ir_datasets than nq's, or a
    BEIR folder too large to encode here."""
    from irlens.tasks import beir, irds

    path = Path(dataset).expanduser()
    if path.exists():
        return (
            path.is_dir() and beir.is_folder(path) and max(f.stat().st_size for f in path.glob("corpus.jsonl*")) > LARGE
        )
    return irds.identifier(dataset) is not None


def _with(step: Step, **new: str | None) -> Step:
    """The step with those of these settings that are not None."""
    given = {name: value for name, value in new.items() if value is not None}
    return replace(step, settings=replace(step.settings, **given)) if given else step


# -- the making ----------------------------------------------------------------------------------------------------


def furnish(needed: Sequence[Model], steps: Sequence[Step], home: Path) -> tuple[list[Step], dict[str, int]]:
    """Writes the stand-ins under `home`, in a hub cache and folders of their own. Returns the steps as they find them, and
    the parameters of every stand-in by its repository."""
    from irlens.models import stand_ins

    places: dict[str, str] = {}
    sizes: dict[str, int] = {}
    for number, model in enumerate(needed, 1):
        if model.own:
            to = home / "models" / str(number) / Path(model.repo).name
            places[model.name] = str(to)
        else:
            to = hub.cached_as(
                home, model.repo, "model", hub.pinned(model.name, "model")[1] if hub.is_id(model.name) else None
            )
        made, tokenizer = stand_ins.write(model.source, model.role, to)
        if model.role == "policy":
            stand_ins.teach(made, *_lessons(model, steps, made, tokenizer))
            made.save_pretrained(to)
        sizes[f"{model.repo} ({model.role})"] = sum(p.numel() for p in made.parameters())
    return [replaced(step, places) for step in steps], sizes


def _lessons(model: Model, steps: Sequence[Step], made, tokenizer) -> tuple[list[tuple[list[int], list[int]]], int]:
    """([(prompt ids, response ids)] that a policy is taught, for how many steps).

    The responses are short texts that end, for the first prompts of every split that steps draw for; one in two is right
    where the task has a verifier.
    """
    from irlens.models import chat

    end, chooses = chat.end_token(made, tokenizer), random.Random(0)
    lessons, right = [], set()
    for (dataset, split, messages_as), count in _drawn_for(model, steps).items():
        task = _first(dataset, split, count)
        golds = _golds(task)
        right |= set(golds.values())
        asked = chat.prompts(task.topics, tokenizer, task.instruction, messages_as, model.name)
        for prompt, ids in zip(asked, chat.token_ids(tokenizer, asked)):
            for text in _responses(task, golds, prompt.query_id, chooses):
                lessons.append((ids, [*tokenizer(text, add_special_tokens=False)["input_ids"], end]))
    short = [lesson for lesson in lessons if len(lesson[0]) <= LONGEST]
    return short or [(ids[-LONGEST:], response) for ids, response in lessons], MANY if len(right) > 3 else STEPS


def _drawn_for(model: Model, steps: Sequence[Step]) -> dict[tuple, int]:
    """(data set, split, how messages are put) of the steps that draw from a policy, or from what was trained from one, and
    how many prompts at most."""
    from irlens.commands.drawing import train_split

    found: dict[tuple, int] = {}
    for step in steps:
        s = step.settings
        name = getattr(s, "model", None) or getattr(s, "policy", None)
        if step.stage not in ("train", "mine-negatives", "passk", "sample") or not (
            name == model.name or str(name).startswith("@")
        ):
            continue
        s = replace(s, model=model.name)
        split = train_split(s) if step.stage not in ("passk", "sample") else s.split
        key = (s.dataset or catalog.model(model.name).dataset, split, s.messages_as)
        found[key] = max(found.get(key, 0), getattr(s, "limit", None) or TAUGHT)
    return found


def _first(dataset: str, split: str | None, count: int):
    """The first prompts of a split, fewer where each has an answer of its own, which is learnt by heart."""
    from irlens import tasks

    task = tasks.load(dataset, split, min(count, TAUGHT))
    if len(set(_golds(task).values())) > 3:
        task = replace(task, topics=task.topics.head(BY_HEART))
    return task


def _golds(task) -> dict[str, str]:
    """query_id → the right answer of each prompt; none where nothing tells right from wrong."""
    if task.verifier is None or "answers" not in task.topics.columns:
        return {}
    return {query_id: some[0] for query_id, some in zip(task.topics["query_id"], task.topics["answers"])}


def _responses(task, golds: dict[str, str], query_id: str, chooses: random.Random) -> Iterator[str]:
    """A few responses to a prompt, no two alike: right and perhaps wrong ones in turn where they can be told."""
    from irlens.models.stand_ins import WORDS

    for turn in range(4):
        words = " ".join(chooses.choices(WORDS, k=chooses.randint(2, 5)))
        if golds:
            gold = golds[query_id] if turn % 2 else chooses.choice(list(golds.values()))
            words = _written(task, gold).format(words=words, gold=gold)
        yield words


def _written(task, gold: str) -> str:
    """The form of an answer in which the task's own verifier finds it right. Raises UserError if it takes none."""
    for form in ANSWERS:
        if task.verifier(form.format(words="so", gold=gold), gold):
            return form
    raise UserError(
        f"data set {task.name}: its verifier takes none of the forms of {gold[:40]!r} that a stand-in can write"
    )
