"""What a name means: short names, hub ids and folders become a Model whose files are at hand."""

import json
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

from irlens.base import checksums
from irlens.base.errors import UserError, did_you_mean
from irlens.models import hub

PLAIN_PROMPT = "Question: {query}\nAnswer:\n"  # for a model without a chat template; `tiny` was trained on it


@dataclass(frozen=True)
class Model:
    """A language model as a retriever. `repo` is a hub id or a folder; the rest are defaults for its study.

    `learning_rate`, `beta`, `schedule` and `keep_optimiser` are the paper's for 7B models and, for `tiny`, what was measured
    to work at its size. `parameters` are counted, not rounded: costs are estimated from them.
    """

    name: str
    repo: str
    revision: str | None = None
    dataset: str = "sums"
    max_tokens: int = 512
    learning_rate: float = 5e-7
    beta: float = 0.1
    parameters: int | None = None
    schedule: str = "cosine"
    keep_optimiser: bool = False


def _chat(name: str, repo: str, parameters: int) -> Model:
    return Model(name, repo, dataset="ultrafeedback", max_tokens=1024, parameters=parameters)


MODELS = {
    model.name: model
    for model in (
        Model("tiny", "", None, "sums", 96, 2e-4, 1.0, 360_960, schedule="constant", keep_optimiser=True),
        Model("tiny-countdown", "", None, "countdown", 48, 3e-4, 1.0, 359_616),
        Model("mathstral", "mistralai/Mathstral-7B-v0.1", None, "gsm8k", 512, 2e-7, parameters=7_248_023_552),
        _chat("mistral-7b", "mistralai/Mistral-7B-v0.1", 7_241_732_096),
        _chat("mistral-7b-it", "mistralai/Mistral-7B-Instruct-v0.2", 7_241_732_096),
        _chat("mistral-7b-sft", "alignment-handbook/zephyr-7b-sft-full", 7_241_732_096),
        _chat("gemma2-2b-it", "google/gemma-2-2b-it", 2_614_341_888),
    )
}


@dataclass(frozen=True)
class Encoder:
    """A sentence-transformers encoder as a retriever. `repo` is a hub id or a folder.

    A prompt goes before every text; None is the model's own (its `prompts`), "" is none. `pooling` and `normalize` are
    the model card's and used where the repository does not say them itself; None leaves them to the repository.
    """

    name: str
    repo: str
    revision: str | None = None
    query_prompt: str | None = None
    passage_prompt: str | None = None
    pooling: str | None = None
    normalize: bool | None = None
    parameters: int | None = None


def _e5(
    name: str,
    repo: str,
    parameters: int,
    query: str = "query: ",
    passage: str = "passage: ",
    pooling: str = "mean",
) -> Encoder:
    return Encoder(name, f"intfloat/{repo}", None, query, passage, pooling, True, parameters)


WEB = "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery: "
ENCODERS = {
    encoder.name: encoder
    for encoder in (
        Encoder("tiny-e5", "", parameters=30_816),
        _e5("e5", "e5-base-v2", 109_482_240),
        _e5("e5-small", "e5-small-v2", 33_360_000),
        _e5("e5-large", "e5-large-v2", 335_141_888),
        _e5("e5-multilingual", "multilingual-e5-base", 278_043_648),
        _e5("e5-multilingual-small", "multilingual-e5-small", 117_653_760),
        _e5("e5-multilingual-large", "multilingual-e5-large", 559_890_432),
        _e5("e5-instruct", "multilingual-e5-large-instruct", 559_890_432, WEB, ""),
        _e5("e5-mistral", "e5-mistral-7b-instruct", 7_110_660_096, WEB, "", "lasttoken"),
    )
}


@dataclass(frozen=True)
class Reward:
    """A reward model as a reranker. `repo` is a hub id or a folder, `form` how it reads: `scalar` or `pairrm`."""

    name: str
    repo: str
    revision: str | None = None
    form: str = "scalar"
    parameters: int | None = None


REWARDS = {
    reward.name: reward
    for reward in (
        Reward("tiny-rm", "", parameters=359_712),
        Reward("fsfairx", "sfairXC/FsfairX-LLaMA3-RM-v0.1", parameters=7_504_928_768),
        Reward("pairrm", "llm-blender/PairRM", form="pairrm", parameters=436_014_081),
    )
}
EMBEDDED = tuple(entry.name for table in (MODELS, ENCODERS, REWARDS) for entry in table.values() if not entry.repo)
RETRIEVERS = ("bm25", *ENCODERS)
NOT_NEEDED = ["*.bin", "*.pth", "*.pt", "*.gguf", "*.onnx", "*.h5", "*.msgpack", "consolidated*", "original/*"]


def _here(entry):
    """An entry of the catalog; of what comes with this package, with its folder."""
    return entry if entry.repo else replace(entry, repo=str(resources.files("irlens") / "models" / entry.name))


def model(name: str) -> Model:
    """The Model for a short name, a folder with a config.json, or a hub id `owner/name`, with `@revision` where one is pinned.

    Raises UserError for anything else, with the nearest known name.
    """
    if name in MODELS:
        return _here(MODELS[name])
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise UserError(f"--model {name}: the folder has no config.json, so it is not a saved model")
        return replace(_defaults(folder), name=folder.resolve().name, repo=str(folder.resolve()), revision=None)
    if hub.is_id(name):
        return Model(name, *hub.pinned(name, "--model"))
    if "/" in name:
        raise UserError(f"--model {name}: no such folder")
    raise UserError(f"unknown model {name!r}; {did_you_mean(name, MODELS)} (or a hub id owner/name, or a folder)")


def encoder(name: str) -> Encoder:
    """The Encoder for a short name, a sentence-transformers folder, or a hub id `owner/name[@revision]`.

    A hub id or a folder whose last part is that of a known repository (`e5-base-v2`) gets its prompts, because the
    files of those repositories do not hold them. Raises UserError for anything else, with the nearest known name.
    """
    if name in ENCODERS:
        return _here(ENCODERS[name])
    folder = Path(name).expanduser()
    known = {e.repo.rpartition("/")[2]: e for e in ENCODERS.values() if e.repo}
    if folder.is_dir():
        if not any((folder / file).is_file() for file in ("modules.json", "config.json")):
            raise UserError(
                f"--retriever {name}: the folder has no modules.json and no config.json: not a saved encoder"
            )
        base = known.get(folder.resolve().name, Encoder("", ""))
        return replace(base, name=folder.resolve().name, repo=str(folder.resolve()), revision=None)
    if hub.is_id(name):
        repo, revision = hub.pinned(name, "--retriever")
        base = known.get(repo.rpartition("/")[2], Encoder("", ""))
        base = base if base.repo == repo else Encoder("", "")
        return replace(base, name=name.replace("/", "-"), repo=repo, revision=revision)
    if "/" in name:
        raise UserError(f"--retriever {name}: no such folder")
    raise UserError(
        f"unknown retriever {name!r}; {did_you_mean(name, RETRIEVERS)} (or a hub id owner/name, or a folder)"
    )


def reward(name: str) -> Reward | None:
    """The Reward for a short name, a folder with weights, or a hub id `owner/name[@revision]`; None for anything else.

    A hub id or folder that is named like a known repository reads as that one does. Raises UserError for a path
    without a folder.
    """
    if name in REWARDS:
        return _here(REWARDS[name])
    folder = Path(name).expanduser()
    forms = {r.repo.rpartition("/")[2]: r.form for r in REWARDS.values()}
    if folder.is_dir():
        path = folder.resolve()
        inner = path / "model"  # of what `irlens fit-reranker` writes
        there = inner if not (path / "config.json").is_file() and (inner / "config.json").is_file() else path
        return Reward(path.name, str(there), form=forms.get(path.name, "scalar"))
    if hub.is_id(name):
        repo, revision = hub.pinned(name, "--reranker")
        return Reward(name.replace("/", "-"), repo, revision, forms.get(repo.rpartition("/")[2], "scalar"))
    if "/" in name:
        raise UserError(f"--reranker {name}: no such folder")
    return None


def _defaults(folder: Path) -> Model:
    """The defaults of the catalog's model that a folder was trained from, if its irlens.json names one."""
    try:
        base = json.loads((folder / "irlens.json").read_text(encoding="utf-8")).get("base")
    except FileNotFoundError:
        base = None
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{folder / 'irlens.json'}: not readable as a JSON object ({error})") from error
    return MODELS.get(base, Model("", ""))


def loaded(instance) -> Model:
    """The Model of a transformers model in this process: the defaults of where it was loaded from, if that is known."""
    path = str(getattr(instance, "name_or_path", "") or "")
    own = (model(name) for name in MODELS)
    if (known := next((entry for entry in own if path and entry.repo == path), None)) is not None:
        return known
    try:
        return model(path) if path else Model("policy", "")
    except UserError:
        return Model("policy", "")


def served(name: str) -> Model:
    """The Model for a name that perhaps only a server knows."""
    try:
        return model(name)
    except UserError:
        return Model(name, name)


def fetch(chosen: Model | Encoder | Reward, weights: bool = True) -> Path:
    """The folder with the model's files (without `weights` the small ones), downloaded if they are not there yet.

    Raises UserError in one line: no network, no such repository, a repository that wants a login, a folder that is not
    as it was written (`base.checksums`).
    """
    if Path(chosen.repo).is_dir():
        return checksums.trusted_folder(Path(chosen.repo))
    unwanted = NOT_NEEDED if weights else [*NOT_NEEDED, "*.safetensors"]
    kinds = {Encoder: "--retriever tiny-e5", Reward: "--reranker majority"}
    embedded = kinds.get(type(chosen), "--model tiny")
    instead = f"{embedded} needs no download"
    return hub.snapshot(chosen.repo, "model", instead, chosen.revision, ignore_patterns=unwanted)
