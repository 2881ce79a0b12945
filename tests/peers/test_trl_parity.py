"""Our losses beside TRL's own code on the same token log-probabilities: values and gradients.

TRL's trainers compute their losses in methods that also run the model and log, so each trainer here is made without its
constructor, given the attributes that the method reads and a model that answers with the log-probabilities of the test.
Needs the extra `bench`; written for TRL 1.16. TRL has no RRHF, R-DPO, SPIN or IRFT (the last two are its DPO loss), no
InfoNCA, SWEPO, REBEL, PKPO or best-minus-second, of SLiC-HF the hinge loss alone, and of LiPO-lambda, DPO-PL and S-DPO the
case of a pair, which is DPO: `tests/train/losses/` works those out by hand.
"""

import math
import os
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from trl_given import B, Pairs, agree, bare, make_pairs, output, seeds

from irlens.train.losses import get

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
pytest.importorskip("trl", minversion="1.16")


def trl_dpo(pairs: Pairs, beta: float, loss_types: list[str], weights: list[float], wpo: bool = False) -> torch.Tensor:
    from trl import DPOTrainer

    trainer = bare(
        DPOTrainer,
        beta=beta,
        loss_types=loss_types,
        loss_weights=weights,
        ld_alpha=None,
        f_divergence_type="reverse_kl",
        label_smoothing=0.0,
        use_weighting=wpo,
    )
    chosen, rejected = pairs.reference.sum(1).chunk(2)
    inputs = {
        "input_ids": pairs.ids,
        "attention_mask": torch.ones_like(pairs.ids),
        "completion_mask": pairs.completion.long(),
        "ref_chosen_logps": chosen,
        "ref_rejected_logps": rejected,
    }
    found = output(pairs.tokens)
    found.log_sum_sq_probs = pairs.squared
    return trainer._compute_loss(lambda **kwargs: found, inputs, return_outputs=False)


def trl_cpo(pairs: Pairs, beta: float, loss_type: str, alpha: float, gamma: float = 0.0) -> torch.Tensor:
    from trl.experimental.cpo import CPOTrainer

    trainer = bare(
        CPOTrainer,
        beta=beta,
        loss_type=loss_type,
        cpo_alpha=alpha,
        simpo_gamma=gamma,
        alpha=0.0,
        label_smoothing=0.0,
        is_encoder_decoder=False,
        pad_token_id=0,
    )
    batch = {}
    for side, rows in (("chosen", slice(0, B)), ("rejected", slice(B, 2 * B))):
        batch |= {f"{side}_input_ids": pairs.ids[rows], f"{side}_labels": pairs.labels[rows]}
        batch[f"{side}_attention_mask"] = torch.ones_like(pairs.ids[rows])
    loss, _ = trainer.get_batch_loss_metrics(lambda *args, **kwargs: SimpleNamespace(logits=pairs.logits), batch)
    return loss


def trl_kto(pairs: Pairs, beta: float, weights: tuple[float, float], other: Pairs) -> torch.Tensor:
    """The mismatched responses are the winners of `other`."""
    from trl import KTOTrainer

    trainer = bare(
        KTOTrainer,
        beta=beta,
        loss_type="kto",
        calculate_KL=True,
        desirable_weight=weights[0],
        undesirable_weight=weights[1],
    )
    inputs = {
        "input_ids": pairs.ids,
        "attention_mask": torch.ones_like(pairs.ids),
        "completion_mask": pairs.completion.long(),
        "KL_input_ids": other.ids[:B],
        "KL_attention_mask": torch.ones_like(other.ids[:B]),
        "KL_completion_mask": other.completion[:B].long(),
        "label": torch.arange(2 * B) < B,
        "ref_logps": pairs.reference.sum(1),
        "ref_KL_logps": other.reference[:B].sum(1),
    }

    def model(input_ids, **kwargs):
        return output(pairs.tokens if input_ids is pairs.ids else other.tokens[:B])

    return trainer._compute_loss(model, inputs, return_outputs=False)


@seeds
@pytest.mark.parametrize("name", ["pairwise", "contrastive", "lambdarank", "listmle", "spin", "irft"])
@pytest.mark.parametrize("beta", [0.1, 2.0])
def test_dpo(name, beta, seed):
    """On a pair each of these is DPO."""
    pairs = make_pairs(seed)
    agree(pairs, get(name)(pairs.scores, beta=beta), trl_dpo(pairs, beta, ["sigmoid"], [1.0]))


@seeds
def test_r_dpo_without_its_penalty_is_dpo(seed):
    pairs = make_pairs(seed)
    agree(pairs, get("r-dpo")(pairs.scores, alpha=0), trl_dpo(pairs, 0.1, ["sigmoid"], [1.0]))


@seeds
def test_length_normalised_dpo(seed):
    pairs = make_pairs(seed)
    ours = get("pairwise")(pairs.scores, beta=2.0, length_normalised=True)
    agree(pairs, ours, trl_dpo(pairs, 2.0, ["sigmoid_norm"], [1.0]))


@seeds
@pytest.mark.parametrize("weight", [0.2, 1.0])
def test_dpo_with_nll(seed, weight):
    """RPO. TRL averages over the batch's tokens, so the winners are equally long."""
    pairs = make_pairs(seed, same_length=True)
    agree(pairs, get("pairwise")(pairs.scores, nll=weight), trl_dpo(pairs, 0.1, ["sigmoid", "sft"], [1.0, weight]))


@seeds
def test_sft(seed):
    pairs = make_pairs(seed, same_length=True)
    agree(pairs, get("sft")(pairs.scores), trl_dpo(pairs, 0.1, ["sft"], [1.0]))


@seeds
@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_ipo(beta, seed):
    pairs = make_pairs(seed)
    agree(pairs, get("ipo")(pairs.scores, beta=beta), trl_dpo(pairs, beta, ["ipo"], [1.0]))


@seeds
@pytest.mark.parametrize("beta, nll", [(0.1, 1.0), (0.5, 0.0), (0.5, 0.3)])
def test_cpo(beta, nll, seed):
    pairs = make_pairs(seed, same_length=nll > 0)
    agree(pairs, get("cpo")(pairs.scores, beta=beta, nll=nll), trl_cpo(pairs, beta, "sigmoid", nll))


@seeds
@pytest.mark.parametrize("beta, ratio", [(2.0, 0.5), (2.5, 0.1), (10.0, 0.3)])
def test_simpo(beta, ratio, seed):
    pairs = make_pairs(seed)
    ours = get("simpo")(pairs.scores, beta=beta, gamma_beta_ratio=ratio)
    agree(pairs, ours, trl_cpo(pairs, beta, "simpo", 0.0, gamma=ratio * beta))


@seeds
@pytest.mark.parametrize("delta", [1.0, 4.0])
@pytest.mark.parametrize("nll", [0.0, 0.1])
def test_slic_hf(delta, nll, seed):
    """TRL's hinge is max(0, 1 - beta (s_w - s_l)): delta times it, with beta = 1 / delta, is SLiC's."""
    pairs = make_pairs(seed, same_length=True)
    ours = get("slic-hf")(pairs.scores, delta=delta, nll=nll, nll_per_token=True)
    agree(pairs, ours, delta * trl_cpo(pairs, 1 / delta, "hinge", nll / delta))


@seeds
@pytest.mark.parametrize("beta, weights", [(0.1, (1.0, 1.0)), (0.5, (1.33, 0.7))])
@pytest.mark.parametrize("sign", [1, -1])
def test_kto(beta, weights, sign, seed):
    """With mismatched responses that the policy likes more than the reference (z > 0), and less (z = 0)."""
    pairs, other = make_pairs(seed), make_pairs(seed + 100)
    other = replace(other, reference=other.tokens.detach() - sign * torch.rand(other.reference.shape).double())
    with torch.no_grad():
        mismatched, reference = other.tokens[:B].sum(1), other.reference[:B].sum(1)
    assert ((mismatched - reference).mean() > 0) == (sign > 0)
    scores = replace(pairs.scores, mismatched=mismatched, mismatched_reference=reference)
    ours = get("kto")(scores, beta=beta, desirable=weights[0], undesirable=weights[1])
    agree(pairs, ours, trl_kto(pairs, beta, weights, other))


@seeds
@pytest.mark.parametrize("name", ["lipo-lambda", "dpo-pl", "s-dpo"])
def test_names_of_the_same_loss_on_a_pair(name, seed):
    """LiPO-lambda weighs each pair by gains 1 and 0 and ranks 1 and 2: DPO times a constant, whichever leads."""
    pairs = make_pairs(seed)
    weight = 1 / math.log(2) - 1 / math.log(3) if name == "lipo-lambda" else 1.0
    agree(pairs, get(name)(pairs.scores, beta=0.5), weight * trl_dpo(pairs, 0.5, ["sigmoid"], [1.0]))


@seeds
@pytest.mark.parametrize("beta", [0.1, 1.0])
@pytest.mark.parametrize("name, theirs", [("apo-zero", "apo_zero"), ("apo-down", "apo_down"), ("sppo", "sppo_hard"), ("nca", "nca_pair")])  # fmt: skip
def test_losses_of_dpotrainer(name, theirs, beta, seed):
    """TRL's NCA has the best alone as its target: alpha near 0."""
    pairs = make_pairs(seed)
    more = {"alpha": 0.01} if name == "nca" else {}
    agree(pairs, get(name)(pairs.scores, beta=beta, **more), trl_dpo(pairs, beta, [theirs], [1.0]))


@seeds
@pytest.mark.parametrize("name, theirs", [("pairwise", "sigmoid"), ("ipo", "ipo"), ("apo-zero", "apo_zero")])
def test_wpos_weights(name, theirs, seed):
    pairs = make_pairs(seed)
    agree(pairs, get(name)(pairs.scores, wpo=True), trl_dpo(pairs, 0.1, [theirs], [1.0], wpo=True))


@seeds
@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_orpo(beta, seed):
    """The odds-ratio term: TRL's NLL also counts the prompt's tokens, and its odds are computed in float32."""
    from trl.experimental.orpo import ORPOTrainer

    pairs = make_pairs(seed)
    chosen, rejected = (pairs.tokens.sum(1) / pairs.lengths).chunk(2)
    trainer = bare(ORPOTrainer, beta=beta)
    theirs = -trainer.odds_ratio_loss(chosen, rejected)[0].mean()
    ours = get("orpo")(pairs.scores, beta=beta, nll=0)
    gradients = [torch.autograd.grad(loss, pairs.logits)[0] for loss in (ours, theirs)]
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
    assert gradients[0].abs().max() > 0 and torch.allclose(*gradients, atol=1e-5)


# -- whole trainings -----------------------------------------------------------------------------------------------


PREFERENCES = [
    {"prompt": f"Question: What is {i} + {j}?\nAnswer:\n", "chosen": f"#### {i + j}", "rejected": f"#### {i + j + 1}"}
    for i in range(2, 10)
    for j in range(4)
]
STEPS = {
    "learning_rate": 1e-3,
    "lr_scheduler_type": "linear",
    "warmup_steps": 2,
    "max_grad_norm": 1.0,
    "weight_decay": 0.0,
}


def trl_steps(config_class, trainer_class, rows, folder, **config) -> list[float]:
    """The loss of every step of a trainer of TRL over `rows`, in their order, and the weights in the end."""
    from datasets import Dataset
    from transformers import AutoTokenizer

    from irlens.models import catalog, load

    losses, start = [], catalog.fetch(catalog.model("tiny"))

    class Watched(trainer_class):
        def _get_train_sampler(self, *args):
            return torch.utils.data.SequentialSampler(self.train_dataset)

        def compute_loss(self, *args, **kwargs):
            loss = super().compute_loss(*args, **kwargs)
            losses.append(loss.item())
            return loss

    args = config_class(output_dir=str(folder), report_to="none", save_strategy="no", use_cpu=True, bf16=False, seed=0,
                        gradient_checkpointing=False, num_train_epochs=1, disable_tqdm=True, **STEPS, **config)  # fmt: skip
    tokenizer = AutoTokenizer.from_pretrained(start)
    trainer = Watched(model=load.causal_lm(start, device="cpu").float(), args=args, train_dataset=Dataset.from_list(rows),
                      processing_class=tokenizer)  # fmt: skip
    trainer.train()
    return losses


@pytest.mark.parametrize("optimiser", ["sgd", "adamw_torch"])
def test_dpo_on_the_same_pairs_has_trls_losses_at_every_step(optimiser, monkeypatch, tmp_path):
    """`irlens train --lists` beside DPOTrainer: the same pairs in the same order, two epochs of four steps."""
    import json

    from trl import DPOConfig, DPOTrainer

    from irlens.commands.settings import Train
    from irlens.commands.train import train
    from irlens.train import trainer

    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in PREFERENCES))
    ours, seen, real = [], [], trainer.RankingTrainer.compute_loss

    def watched(self, model, inputs, *args, **kwargs):
        seen.extend(inputs["names"])
        loss = real(self, model, inputs, *args, **kwargs)
        ours.append(loss.item())
        return loss

    monkeypatch.setattr(trainer.RankingTrainer, "compute_loss", watched)
    rate = 0.05 if optimiser == "sgd" else STEPS["learning_rate"]
    arguments = STEPS | {"optim": optimiser, "save_strategy": "no"}
    arguments.pop("learning_rate")
    train(Train(list_file=str(path), objective="pairwise", beta=0.5, epochs=2, batch_lists=8, lists_at_once=8,
                learning_rate=rate, trainer_args=json.dumps(arguments), out=str(tmp_path / "a"), devices="0"))  # fmt: skip
    asked = {f"{row['query_id']}, iteration 0, list 0": row["query"] for row in lists_of(path)}
    rows = {row["prompt"]: row for row in PREFERENCES}
    order = [rows[asked[name]] for name in seen]
    assert len(order) == 2 * len(PREFERENCES) and order[: len(PREFERENCES)] != PREFERENCES
    monkeypatch.setitem(STEPS, "learning_rate", rate)
    theirs = trl_steps(DPOConfig, DPOTrainer, order, tmp_path / "b", beta=0.5, optim=optimiser, per_device_train_batch_size=8,
                       precompute_ref_log_probs=True)  # fmt: skip
    assert len(ours) == len(theirs) == 8 and ours == pytest.approx(theirs, abs=1e-4)
    assert ours[0] == pytest.approx(0.6931, abs=1e-4) and min(ours[4:]) < ours[0] - 0.01


def lists_of(path) -> list[dict]:
    from irlens.train import list_files

    return list_files.read(path).drop_duplicates("query_id").to_dict("records")


def test_trls_trainers_take_what_a_training_leaves(tmp_path):
    """iteration-1/export: DPOTrainer takes the pairs, KTOTrainer the labelled responses of lists and of the run."""
    from datasets import load_dataset
    from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer

    from irlens.commands.settings import Train
    from irlens.commands.train import train

    small = {"prompts": 16, "n": 6, "iterations": 1, "epochs": 1, "eval_limit": 4, "eval_n": 2, "test_limit": 0}
    folder, *_ = train(Train(export="trl,kto", out=str(tmp_path / "a"), **small))
    for form, config, kind in (("trl", DPOConfig, DPOTrainer), ("kto", KTOConfig, KTOTrainer), ("kto-run", KTOConfig, KTOTrainer)):  # fmt: skip
        file = str(folder / "iteration-1" / "export" / f"{form}.jsonl")
        rows = load_dataset("json", data_files=file, split="train", cache_dir=str(tmp_path / "hf")).to_list()
        losses = trl_steps(config, kind, rows[:16], tmp_path / form, per_device_train_batch_size=8)
        assert len(losses) == 2 and all(0 < abs(loss) < 20 for loss in losses)
