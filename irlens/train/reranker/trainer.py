"""The trainer of a reranker: a policy's, whose steps it shares, with a classifier's scores in the place of log-ratios."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import Trainer

from irlens.train import trainer as policies
from irlens.train.losses.scores import Scores
from irlens.train.reranker.objectives import Judged
from irlens.train.reranker.options import Training
from irlens.train.reranker.texts import Texts, collate


class RerankerTrainer(policies.RankingTrainer):
    """A Trainer whose loss is an objective over the scores of a list's texts; its log says how good and bad ones score."""

    def _scores(self, model, inputs: dict) -> Judged:
        more = {"use_cache": False} if self.causal else {}
        logits = model(**inputs["texts"], **more).logits[:, 0].float()
        mask = inputs["mask"]
        scores = torch.zeros(mask.shape, device=mask.device).masked_scatter(mask, logits)
        return Judged.of(scores, inputs["grade"], mask, inputs.get("margin"))

    def diagnose(self, scores: Scores) -> dict[str, float]:
        """Of a pass, summed over its lists: the share of its pairs of two grades that are in order, and mean scores."""
        above, score = scores.above, scores.logprob.detach()
        ahead = (score.unsqueeze(2) > score.unsqueeze(1)) + (score.unsqueeze(2) == score.unsqueeze(1)) / 2
        best, worst = ~above.any(1) & scores.mask, ~above.any(2) & scores.mask

        def mean(values: torch.Tensor, where: torch.Tensor, over: tuple) -> torch.Tensor:
            return (values * where).sum(over) / where.sum(over).clamp(min=1)

        return policies.summed(
            {
                "lists": scores.mask.any(-1),
                "pair_accuracy": mean(ahead, above, (1, 2)),
                "score_best": mean(score, best, (1,)),
                "score_worst": mean(score, worst, (1,)),
                "list_size": scores.mask.sum(-1),
            }
        )

    def _prepare_inputs(self, inputs: dict) -> dict:
        kept = {name: inputs.pop(name) for name in ("names", "tiers")}
        texts = {name: values.to(self.args.device) for name, values in inputs.pop("texts").items()}
        return {**Trainer._prepare_inputs(self, inputs), **kept, "texts": texts}


def train(model, pad: int, examples: list[Texts], options: Training, folder: Path) -> RerankerTrainer:
    """Trains `model` in place and returns its trainer; see `irlens.train.trainer.train`. pad: the token that pads."""
    folder.mkdir(parents=True, exist_ok=True)
    arguments = policies.training_arguments(folder, options, len(examples), model.num_parameters())
    policies.only_whole(folder, arguments)
    causal = hasattr(model, "score")
    made = RerankerTrainer(
        model=model.to(arguments.device),
        args=arguments,
        train_dataset=examples,
        data_collator=lambda batch: collate(batch, pad),
        options=options,
    )
    made.causal = causal
    return policies.run(made, folder)
