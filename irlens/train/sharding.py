"""Weights divided over processes (FSDP2): a model built empty and filled a tensor at a time, its checkpoints, and whole again.

No process but the first ever holds the whole model, and no device does: the first reads the files in the dtype in which
they are, on the host, and hands out every tensor's parts.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
import torch.distributed as dist

from irlens.base.devices import first
from irlens.base.errors import UserError
from irlens.train.parts import Reader

LAYERS = "_no_split_modules"  # where transformers names the classes of a model's layers
PARTS, SCHEDULE = "parts", "schedule.pt"  # of a checkpoint: every process's part of what is trained; the learning rate


def several() -> bool:
    """Whether a launcher has started more than one process."""
    return int(os.environ.get("WORLD_SIZE", 1)) > 1


def empty(folder: Path, dtype: torch.dtype):
    """The language model in `folder` without weights: its parameters have shapes and no values.

    Raises UserError for a folder that holds no such model.
    """
    from accelerate import init_empty_weights
    from transformers import AutoModelForCausalLM, GenerationConfig

    from irlens.models import load

    config = load.config(folder)
    with init_empty_weights(include_buffers=False):
        try:
            model = AutoModelForCausalLM.from_config(config, dtype=dtype)
        except ValueError as error:
            raise UserError(f"{folder}: cannot be loaded as a causal language model ({error})") from error
    model.tie_weights()
    if (folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    return model


def divide(model, device: torch.device, mixed: bool):
    """The model with its weights divided over all processes, on `device`, those that are trained in float32; their values
    are those of the first process.

    mixed: layers are gathered in bfloat16, for autocast; what runs between them stays in the dtype of the weights, as in
    one process. Every process calls it. Raises UserError for a model that does not name its layers.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    source = dict(model.named_parameters()) if first() else {}
    buffers = dict(model.named_buffers())
    model = _without_weights(model)
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    half = {"param_dtype": torch.bfloat16, "reduce_dtype": torch.float32} if mixed else {}
    policy = MixedPrecisionPolicy(**half, cast_forward_inputs=False)
    for layer in layers(model):
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    rest = MixedPrecisionPolicy(cast_forward_inputs=False)
    fully_shard(model, mesh=mesh, mp_policy=rest, reshard_after_forward=True)  # divided whenever nothing runs
    parts = _parts(model, source, device)
    model.load_state_dict(parts, strict=False, assign=True)
    for name, value in buffers.items():
        owner, _, own = name.rpartition(".")
        held = model.get_submodule(owner)._buffers
        held[own] = value.to(device)
        dist.broadcast(held[own], 0)
    if hasattr(model, "tie_weights"):
        model.tie_weights()
    return model


def layers(model) -> list:
    """The modules that a forward pass goes through one after the other. Raises UserError if the model does not say."""
    names = set(getattr(model, LAYERS, None) or ())
    found = [module for module in model.modules() if type(module).__name__ in names]
    if not found:
        raise UserError(f"--shard: {type(model).__name__} does not say what its layers are, so it cannot be divided")
    return found


def _without_weights(model):
    """The model with its parameters on the meta device, in float32 what is trained; tied ones stay tied."""
    model = model.to("meta")
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    if hasattr(model, "tie_weights"):
        model.tie_weights()
    return model


def _parts(model, source: dict, device: torch.device) -> dict:
    """Parameter name → this process's part of the first process's value, one tensor at a time."""
    from torch.distributed.tensor import distribute_tensor

    dtypes = [{name: value.dtype for name, value in source.items()}]
    dist.broadcast_object_list(dtypes, 0)
    parts = {}
    for name, parameter in model.named_parameters():
        if source:
            whole = source.pop(name).detach().to(device)
        else:
            whole = torch.empty(parameter.shape, dtype=dtypes[0][name], device=device)
        part = distribute_tensor(whole, parameter.device_mesh, parameter.placements)
        parts[name] = part.to(parameter.dtype)
    return parts


def divided(model) -> bool:
    """Whether a model's weights are divided."""
    from torch.distributed.tensor import DTensor

    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def whole(model, dtype: torch.dtype, trainable: bool = False) -> dict[str, torch.Tensor]:
    """The model's weights in `dtype` on the host, gathered a tensor at a time: all, or only the trainable ones.

    Every process calls it; the first gets them, the others nothing.
    """
    from torch.distributed.tensor import DTensor

    parameters = dict(model.named_parameters(remove_duplicate=False))
    state, found, once = model.state_dict(), {}, {}
    for name, value in state.items():
        parameter = parameters.get(name)
        if trainable and (parameter is None or not parameter.requires_grad):
            continue
        key = id(value if parameter is None else parameter)  # what is tied is gathered, and saved, once
        if key not in once:
            value = value.full_tensor() if isinstance(value, DTensor) else value
            if not first():
                value = None
            elif value.is_floating_point():
                value = value.to("cpu", dtype)
            once[key] = value
        if first():
            found[name] = once[key]
    return found


class Divided:
    """A Trainer's part for a model whose weights are divided already: they are neither moved nor wrapped, and each process
    writes and reads its own part of a checkpoint, which any number of processes can continue."""

    def create_accelerator_and_postprocess(self) -> None:
        """The accelerator, which is to apply autocast to the model and nothing else."""
        super().create_accelerator_and_postprocess()
        prepare = self.accelerator.prepare_model
        self.accelerator.prepare_model = lambda model, **_: prepare(model, device_placement=False, evaluation_mode=True)

    def _move_model_to_device(self, model, device) -> None:
        """It is there."""

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Nothing: the weights are written with the optimiser's state."""

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model=None) -> None:
        """Nothing: the weights are read with the optimiser's state."""

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        """Weights and moments, each process its parts; the learning rate's schedule."""
        import torch.distributed.checkpoint as checkpoint

        checkpoint.save(_trained(self.model) | _moments(self), checkpoint_id=Path(output_dir) / PARTS)
        if self.args.should_save:
            groups = [{k: v for k, v in group.items() if k != "params"} for group in self.optimizer.param_groups]
            torch.save({"groups": groups, "scheduler": self.lr_scheduler.state_dict()}, Path(output_dir) / SCHEDULE)

    def _load_optimizer_and_scheduler(self, folder: str | None) -> None:
        """What a checkpoint holds. Raises UserError if it is not this model's."""
        import torch.distributed.checkpoint as checkpoint

        if folder is None:
            return
        found = Reader(Path(folder) / PARTS).read_metadata().state_dict_metadata
        weights = _trained(self.model)
        if any(found[name].size != value.shape if name in found else True for name, value in weights.items()):
            raise UserError(f"{folder}: not a checkpoint of this model; delete it and run again")
        fused = any(group.get("fused") or group.get("capturable") for group in self.optimizer.param_groups)
        counts = self.args.device if fused else "cpu"  # where AdamW keeps its number of steps
        moments = {n: _room(weights[n.rpartition("/")[0]], kept, counts) for n, kept in found.items() if "/" in n}
        checkpoint.load(weights | moments, storage_reader=Reader(Path(folder) / PARTS))
        parameters = dict(self.model.named_parameters())
        for name, value in moments.items():
            name, _, key = name.rpartition("/")
            self.optimizer.state[parameters[name]][key] = value
        saved = torch.load(Path(folder) / SCHEDULE, weights_only=True)
        for group, kept in zip(self.optimizer.param_groups, saved["groups"], strict=True):
            group.update(kept)
        self.lr_scheduler.load_state_dict(saved["scheduler"])


def _trained(model) -> dict:
    """The weights that are trained: the others are read from their files at every start."""
    return {name: parameter.data for name, parameter in model.named_parameters() if parameter.requires_grad}


def _moments(trainer) -> dict:
    """weight/name → value of what the optimiser remembers of each weight."""
    known = {name: trainer.optimizer.state.get(value, {}) for name, value in trainer.model.named_parameters()}
    return {f"{name}/{k}": value for name, state in known.items() for k, value in state.items() if value is not None}


def _room(weight, kept, device) -> torch.Tensor:
    """Where what is `kept` of a weight is read into: divided as the weight is, where it is of its shape, else on `device`."""
    dtype = kept.properties.dtype
    same = kept.size == weight.shape
    return torch.zeros_like(weight, dtype=dtype) if same else torch.zeros(kept.size, dtype=dtype, device=device)
