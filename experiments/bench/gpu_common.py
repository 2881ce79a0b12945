"""What the benches for a GPU share: the device and its peak, and tables that are written row by row."""

import argparse
import csv
import gc
import re
import time
from pathlib import Path

import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
PEAK = {  # dense bfloat16 TFLOP/s of the makers' data sheets
    "GB200": 2500, "B200": 2250, "H200": 989, "H100 PCIe": 756, "H100": 989, "H20": 148, "A100": 312, "A800": 312,
    "L40S": 362, "L40": 181, "L4": 121, "A10G": 70, "A10": 125, "A40": 150, "A6000": 155, "RTX 5090": 210,
    "RTX 4090": 165, "RTX 3090": 71, "V100": 125, "T4": 65,
}  # fmt: skip


def device_name() -> str:
    """Of the GPU, or `CPU`."""
    return torch.cuda.get_device_name() if DEVICE == "cuda" else "CPU"


def slug() -> str:
    """The device's name in a file's name."""
    return re.sub(r"[^A-Za-z0-9]+", "-", device_name()).strip("-")


def software() -> str:
    import transformers

    return f"torch {torch.__version__}, transformers {transformers.__version__}"


def peak() -> float | None:
    """FLOP/s by the data sheet; None for a device that is not listed."""
    words = device_name().replace("GeForce ", "")
    return next((1e12 * value for name, value in PEAK.items() if re.search(rf"\b{name}\b", words)), None)


def measured_peak(size: int) -> float:
    """FLOP/s of a bfloat16 product of two random `size` × `size` matrices: the best of five timings of ten."""
    a, b = (torch.randn(size, size, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    seconds = []
    for _ in range(6):
        started = now()
        for _ in range(10):
            a @ b
        seconds.append((now() - started) / 10)
    return 2 * size**3 / min(seconds[1:])


def now() -> float:
    """Seconds, once the device has done what it was given."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def free_memory() -> float:
    """Bytes on the GPU that are free or kept by torch for reuse; 2 GB stand for those of a CPU."""
    if DEVICE == "cpu":
        return 2e9
    return torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved() - torch.cuda.memory_allocated()


def forget() -> None:
    """Gives back what nobody holds."""
    gc.collect()
    if DEVICE == "cuda":
        torch.cuda.empty_cache()


SHAPES = {  # Llama 3.2's 3B and 1B, and smaller ones for less memory
    "3B": {"hidden_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 24, "head_dim": 128},
    "1B": {"hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 32, "head_dim": 64},
    "300M": {"hidden_size": 1024, "num_hidden_layers": 12, "num_attention_heads": 16, "head_dim": 64},
    "dry": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "head_dim": 16},
}


def random_llama(size: str, dtype=torch.float32, **more):
    """A Llama of one of SHAPES with random weights, made on the device."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    small = size == "dry"
    shape = SHAPES[size] | {
        "vocab_size": 1000 if small else 128_256,
        "intermediate_size": 64 if small else 4 * SHAPES[size]["hidden_size"] if size != "3B" else 8192,
        "num_key_value_heads": 1 if small else 8,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": 1,
        "pad_token_id": 0,
    }
    torch.manual_seed(0)
    with torch.device(DEVICE):
        return AutoModelForCausalLM.from_config(LlamaConfig(**(shape | more)), dtype=dtype)


class Table:
    """A CSV file `PART-DEVICE.csv` whose rows are on disk as they are made, so that a killed part leaves those it had."""

    def __init__(self, folder: Path, part: str, columns: tuple[str, ...]):
        self.path, self.columns = folder / f"{part}-{slug()}.csv", (*columns, "device", "software")
        folder.mkdir(parents=True, exist_ok=True)
        self._write("w", dict(zip(self.columns, self.columns)))

    def add(self, **row) -> None:
        print(" ".join(f"{name}={value}" for name, value in row.items() if value not in (None, "")), flush=True)
        self._write("a", row | {"device": device_name(), "software": software()})

    def _write(self, mode: str, row: dict) -> None:
        with self.path.open(mode, newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self.columns).writerow(row)


def options(doc: str) -> argparse.ArgumentParser:
    """--out, --seconds and --dry, which every part has."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "gpu")
    parser.add_argument("--seconds", type=float, default=240, help="after which nothing new is begun")
    parser.add_argument("--dry", action="store_true", help="the smallest sizes, to see that it runs")
    return parser
