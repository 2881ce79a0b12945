"""What weights are, by their content: what names everything that was made with them."""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections import Counter
from importlib import metadata
from pathlib import Path

HALF = ("BF16", "F16")  # what files of safetensors call bfloat16 and float16
SMALL = 50_000_000  # parameters below which a model costs little, however it is kept


def digest(folder: Path | None) -> str | None:
    """Short SHA-256 over the weights of a small model; for a hub snapshot its revision; None at a server."""
    if folder is None:
        return None
    if folder.parent.name == "snapshots":
        return folder.name
    files = sorted(folder.glob("*.safetensors"))
    return _sha256(tuple((path, path.stat().st_size, path.stat().st_mtime_ns) for path in files))


@functools.cache
def _sha256(files: tuple[tuple[Path, int, int], ...]) -> str:
    """Of the contents of files (path, size, time of change), each read once while it stays as it is."""
    sha = hashlib.sha256()
    for path, _, _ in files:
        with path.open("rb") as file:
            while block := file.read(1 << 24):
                sha.update(block)
    return sha.hexdigest()[:16]


def digest_of_files(folder: Path) -> str:
    """SHA-256 over all files of a model's folder that are not weights in safetensors: its configuration, tokenizer,
    templates, and weights in other formats. A hub snapshot is named by its revision."""
    if folder.parent.name == "snapshots":
        return folder.name
    sha = hashlib.sha256()
    for path in sorted(p for p in folder.iterdir() if p.is_file() and p.suffix != ".safetensors"):
        with path.open("rb") as file:
            sha.update(f"{path.name}:{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return sha.hexdigest()


def runs_with(engine: str = "transformers") -> dict[str, str | None]:
    """What numbers depend on beside a model's files, to rounding: the libraries, and the kind of device."""
    import torch

    names = ("torch", engine)
    return {name: _version(name) for name in names} | {"device": "cuda" if torch.cuda.is_available() else "cpu"}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def digest_in_memory(model) -> str:
    """The same of a model in this process: its tensors by name, as they are now."""
    import torch

    sha = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        sha.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()[:16]


def stored(folder: Path) -> tuple[int, str | None]:
    """(parameters, dtype of the most of them as safetensors calls it) of the weights in a folder, read from the heads of
    their files; (0, None) where there are none of safetensors."""
    counts: Counter[str] = Counter()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            tensors = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        for name, tensor in tensors.items():
            if name != "__metadata__":
                counts[tensor["dtype"]] += math.prod(tensor["shape"])
    return counts.total(), max(counts, key=counts.__getitem__, default=None)


def saved_as(asked: str, folder: Path | None, model=None) -> str:
    """The dtype in which a policy is saved that is trained from the weights in `folder`, or from `model` in this process:
    as asked, or (auto) bfloat16 from SMALL parameters on and where the start is in half precision, else float32."""
    if asked != "auto":
        return asked
    if folder is not None:
        parameters, dtype = stored(folder)
        half = dtype in HALF
    else:
        parameters, half = model.num_parameters(), model.dtype.itemsize == 2
    return "bfloat16" if half or parameters >= SMALL else "float32"
