"""The trainer of a reranker: a policy's, whose steps it shares, with a classifier's scores in the place of log-ratios."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import Trainer

from irlens.train import trainer as policies
from irlens.train.losses.scores import Scores
from irlens.train.muon import Muon
from irlens.train.reranker.objectives import Every, Judged, at_every_token
from irlens.train.reranker.options import Training
from irlens.train.reranker.texts import Texts, collate


class RerankerTrainer(policies.RankingTrainer):
    """A Trainer whose loss is an objective over the scores of a list's texts; its log says how good and bad ones score."""

    def _scores(self, model, inputs: dict) -> Judged:
        more, mask = {"use_cache": False} if self.causal else {}, inputs["mask"]
        with self._heads(model) as heads:
            logits = model(**inputs["texts"], **more).logits[:, 0].float()
        scores = torch.zeros(mask.shape, device=mask.device).masked_scatter(mask, logits)
        every = _every(heads[-1], inputs) if heads and "starts" in inputs else None
        return Judged.of(scores, inputs["grade"], mask, inputs.get("margin"), every)

    def create_optimizer(self, *args, **kwargs):
        """Muon, where it was asked for, or as TrainingArguments have it."""
        if self.optimizer is None and self.options.optimiser == "muon":
            self.optimizer = Muon(self.model, self.args.learning_rate)
        return super().create_optimizer(*args, **kwargs)

    @contextmanager
    def _heads(self, model) -> Iterator[list[torch.Tensor]]:
        """What the head of a language model gives in passes meanwhile, [rows, tokens, 1] each; nothing where none asks."""
        found: list[torch.Tensor] = []
        if not self.options.every_token:
            yield found
            return
        head = self.accelerator.unwrap_model(model).score
        hook = head.register_forward_hook(lambda module, given, out: found.append(out))
        try:
            yield found
        finally:
            hook.remove()

    def _loss(self, scores: Judged) -> torch.Tensor:
        loss, weight = super()._loss(scores), self.options.every_token
        if not weight or scores.every is None:
            return loss
        return loss + weight * at_every_token(scores, self.objective.counts(scores.grade, scores.mask))

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


def _every(head: torch.Tensor, inputs: dict) -> Every:
    """The scores [rows, tokens, 1] at the tokens of responses, and whose they are."""
    there, starts, mask = inputs["texts"]["attention_mask"].bool(), inputs["starts"], inputs["mask"]
    there = there & (torch.arange(there.shape[1], device=there.device) >= starts.unsqueeze(1))
    owners = mask.flatten().nonzero()  # [rows, 1]: a row for each candidate, list by list
    return Every(head[..., 0].float()[there], owners.expand_as(there)[there])


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
