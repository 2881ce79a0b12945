"""The plan of memory: what the paper's settings need of a GPU, what is refused before a download, and what is named instead."""

from dataclasses import replace

import pytest

from irlens.base.errors import UserError
from irlens.commands import memory
from irlens.commands.drawing import load_policy
from irlens.commands.settings import PassK, Train
from irlens.models import hub
from irlens.models.memory import GIB
from irlens.reproduce import recipe, run

SEVEN = Train(model="mistral-7b-it", dataset="ultrafeedback", reward="pairrm", engine="vllm", max_length=2048)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Whatever wants the hub fails."""
    monkeypatch.setattr(hub, "snapshot", lambda *args, **kwargs: pytest.fail(f"asked the hub for {args[0]}"))


def trained(count=1, **more):
    """GiB that training needs, and at least."""
    need = next(n for n in memory.needs(replace(SEVEN, **more), count) if n.phase == "training")
    return need.total / GIB, need.least / GIB


def checked(count=1, **more):
    """The lines that a check says, the last one being what it raises."""
    said = []
    try:
        memory.check(replace(SEVEN, devices=str(count), **more), said.append)
    except UserError as error:
        said.append(f"refused: {error}")
    return said


def test_a_7b_model_whole_on_one_gpu_on_eight_divided_and_with_adapters():
    whole, divided, adapters = trained(), trained(8, shard=True), trained(lora_rank=16)
    assert 120 < whole[1] < whole[0] < 135  # 18 bytes a parameter are 121 GiB
    assert trained(8)[0] == pytest.approx(whole[0] + 4 * 7_241_732_096 / GIB)  # DDP's buckets
    assert 15 < divided[1] < divided[0] < 30 and trained(1, shard=True) == whole
    assert 14 < adapters[1] < adapters[0] < 24 and trained(lora_rank=16, quantize="4bit")[0] < 12
    assert trained(max_length=256)[0] < whole[0] - 4


def test_what_cannot_fit_is_one_line_that_names_what_would():
    *said, last = checked(device_memory="80GiB")
    assert [line.split(": ")[1] for line in said] == [
        "drawing from mistral-7b-it", "scoring by pairrm", "training mistral-7b-it",
    ]  # fmt: skip
    assert last.startswith("refused: training mistral-7b-it: ") and "\n" not in last
    assert "the 80 GiB of a device" in last and "--shard on 2 devices" in last and "--lora-rank 16 (21 GiB)" in last
    last = checked(8, device_memory="80GiB")[-1]
    assert "what would: --shard (25 GiB); --lora-rank 16" in last
    assert not any("refused" in line or "warning" in line for line in checked(8, device_memory="80GiB", shard=True))  # fmt: skip
    assert 'what would: --engine-args \'{"max_model_len"' in checked(device_memory="20GiB")[-1]
    assert "drawing" in (last := checked(device_memory="12GiB")[-1]) and "--tensor-parallel 2" in last


def test_what_is_named_fits():
    """The shorter lists, the adapters: each, taken, is neither refused nor warned of."""
    *_, last = checked(8, device_memory="24GiB", shard=True)
    assert last.startswith("warning: training mistral-7b-it may run out of memory on the longest texts")
    shorter = int(last.rpartition("--max-length ")[2])
    for more in ({"max_length": shorter}, {"lora_rank": 16}):
        assert not any("warning" in s for s in checked(8, device_memory="24GiB", shard=True, **more))
    assert any("warning" in s for s in checked(8, device_memory="24GiB", shard=True, max_length=shorter + 256))


def test_without_a_gpu_nothing_is_said_and_tiny_fits_anywhere(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert checked() == []
    assert not any("refused" in s or "warning" in s for s in checked(model="tiny", device_memory="8GiB"))


def test_the_size_of_a_device_is_read():
    assert memory.parse("80GiB") == memory.parse("80") == 80 * GIB and memory.parse("80 GB") == 80 * 10**9
    for bad in ("much", "80 apples", "0", "-3GiB"):
        with pytest.raises(UserError, match="expected a size such as 80GiB"):
            memory.parse(bad)


def test_a_refusal_comes_before_any_download(monkeypatch, tmp_path):
    with pytest.raises(UserError, match="training mistral-7b-it: .* do not fit"):
        load_policy(replace(SEVEN, device_memory="80GiB"), None, None, print, verified=False)
    monkeypatch.setattr(memory, "of_device", lambda settings: 16 * GIB)
    with pytest.raises(UserError, match="^rrhf: drawing from mistral-7b-it: .* do not fit"):
        run.run(recipe.load("table2", "paper"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_paper_presets_train_on_eight_gpus_of_80_gib_each():
    """Every training of every recipe, in the settings of its file."""
    seen = 0
    for name in recipe.names():
        for preset in (p for p in recipe.presets(name) if p.startswith("paper")):
            for step in recipe.load(name, preset).steps:
                if isinstance(step.settings, (Train, PassK)) and not step.settings.model.startswith("@"):
                    needs = list(memory.needs(step.settings, 8, ask=False))
                    assert needs and max(need.total for need in needs) < 80 * GIB, (name, preset, step.name)
                    seen += step.stage == "train"
    assert seen > 40
