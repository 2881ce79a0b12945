"""What weights are, by their content: what names everything that was made with them."""

from __future__ import annotations

import functools
import hashlib
from importlib import metadata
from pathlib import Path


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
