"""The parts of a divided checkpoint, whose index is a pickle: read as names and numbers alone, so that no code is run."""

from __future__ import annotations

import pickle

import torch
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta

from irlens.base.errors import UserError

INDEX = "torch.distributed.checkpoint.metadata"
ALLOWED = {  # what torch.distributed.checkpoint writes of tensors; nothing that is stored as bytes, which is a pickle again
    *((INDEX, name) for name in ("Metadata", "TensorStorageMetadata", "TensorProperties", "ChunkStorageMetadata")),
    *((INDEX, name) for name in ("MetadataIndex", "StorageMeta", "_MEM_FORMAT_ENCODING")),
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
    ("torch.serialization", "_get_layout"),
    ("torch", "Size"),
    ("pathlib", "PosixPath"),
    ("pathlib", "Path"),
}


class _Plain(pickle.Unpickler):
    """Reads ALLOWED names and torch's dtypes; raises pickle.UnpicklingError for any other."""

    def find_class(self, module: str, name: str):
        if (module, name) in ALLOWED or (module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it names {module}.{name}, which no checkpoint does")


class Reader(FileSystemReader):
    """torch's reader of such a folder. Raises UserError for an index that holds anything else than an index."""

    def read_metadata(self, *args, **more) -> Metadata:
        """The index: what each tensor is and where it lies."""
        path = self._get_metadata_path(more.get("rank"))
        try:
            with self.fs.create_stream(path, "rb") as file:
                found = _Plain(file).load()
        except (pickle.UnpicklingError, EOFError, AttributeError, ValueError, TypeError, IndexError) as error:
            raise UserError(f"{path}: not the index of a checkpoint ({error}); delete the checkpoint") from error
        if not isinstance(found, Metadata):
            raise UserError(f"{path}: not the index of a checkpoint; delete the checkpoint")
        found.storage_meta = found.storage_meta or StorageMeta()
        found.storage_meta.load_id = self.load_id
        return found
