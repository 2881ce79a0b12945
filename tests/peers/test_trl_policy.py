"""Our policy-gradient losses beside GRPOTrainer's and RLOOTrainer's on the same token log-probabilities: values and gradients.

Written for TRL 1.16; PKPO and best-minus-second, which TRL has not, are worked out by hand in `tests/train/losses/`.
"""

import os
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from trl_given import GRADES, PROMPT, Pairs, agree, bare, make_pairs, seeds

from irlens.train.losses import get

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
pytest.importorskip("trl", minversion="1.16")


def advantages(kind: str) -> torch.Tensor:
    """[2B]: as the trainers have them, with TRL's own deviation, from the grades of lists of four."""
    from trl.trainer.utils import nanstd

    grouped = GRADES.view(3, 4)
    if kind == "rloo":
        return (grouped - (grouped.sum(1, keepdim=True) - grouped) / 3).flatten()
    centred = grouped - grouped.mean(1, keepdim=True)
    return (centred / (nanstd(grouped, dim=1)[:, None] + 1e-4) if kind == "grpo" else centred).flatten()


def trl_policy(pairs: Pairs, kind: str, clips: tuple[float, float], **attributes) -> torch.Tensor:
    """GRPOTrainer's loss, or RLOOTrainer's, on the responses as they are."""
    from trl import GRPOTrainer, RLOOTrainer

    steady = {"delta": None, "use_bias_correction_kl": False}
    given = {
        "loss_type": kind.replace("-", "_"),
        "beta": 0.0,
        "importance_sampling_level": "token",
        "epsilon_low": clips[0],
        "epsilon_high": clips[1],
        "max_completion_length": 512,
        "top_entropy_quantile": 1.0,
        "off_policy_mask_threshold": None,
        "args": SimpleNamespace(**steady),
        "use_vllm": False,
        "_entropy_bonus_enabled": False,
        "current_gradient_accumulation_steps": 1,
        "log_completions": False,
    }
    trainer = bare(RLOOTrainer if kind == "rloo" else GRPOTrainer, **given | attributes)
    per_token, mask = pairs.tokens[:, PROMPT - 1 :], pairs.completion[:, PROMPT:].long()
    trainer._get_per_token_logps_and_entropies = lambda *args, **kwargs: (per_token, torch.zeros_like(per_token), None)
    reference = pairs.reference[:, PROMPT - 1 :]
    inputs = {
        "prompt_ids": pairs.ids[:, :PROMPT],
        "prompt_mask": torch.ones_like(pairs.ids[:, :PROMPT]),
        "completion_ids": pairs.ids[:, PROMPT:],
        "completion_mask": mask,
        "advantages": advantages(kind),
        "old_per_token_logps": reference,
        "ref_per_token_logps": reference,
        "old_logps": reference.sum(1),
    }
    return trainer._compute_loss(None, inputs)


near = pytest.mark.parametrize("scale", [0.1, 1.0])  # of the log-ratios: hardly any ratio is clipped, and most are


@seeds
@near
@pytest.mark.parametrize("clips", [(0.2, 0.2), (0.1, 0.4)])
@pytest.mark.parametrize("name", ["grpo", "dr-grpo", "rloo"])
def test_policy_gradients(name, clips, scale, seed):
    pairs = make_pairs(seed)
    drift = (pairs.reference - pairs.tokens.detach()) * scale * pairs.completion[:, 1:]
    pairs = replace(pairs, reference=pairs.tokens.detach() + drift)
    ours = get(name)(pairs.draws, clip_low=clips[0], clip_high=clips[1])
    agree(pairs, ours, trl_policy(pairs, name, clips), rel=1e-6)  # TRL's deviation divides by n - 1 in float32


@seeds
def test_grpo_by_the_response_is_gspo_and_kl_is_trls(seed):
    pairs = make_pairs(seed)
    ours = get("grpo")(pairs.draws, ratio="sequence", length_normalised=True)
    agree(pairs, ours, trl_policy(pairs, "grpo", (0.2, 0.2), importance_sampling_level="sequence"), rel=1e-6)
    agree(pairs, get("grpo")(pairs.draws, kl=0.3), trl_policy(pairs, "grpo", (0.2, 0.2), beta=0.3), rel=1e-6)
