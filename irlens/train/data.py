"""Lists as a trainer reads them: token ids, grades, and the behaviour policy's log-probabilities, stored once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch

from irlens.base.errors import UserError
from irlens.models.chat import response_ids
from irlens.models.logprobs import Layout, Packed, layout, pack, response_logprobs, summed, token_logprobs
from irlens.train.losses import Scores, Tokens


@dataclass(frozen=True)
class Example:
    """One list. `reference` holds the behaviour policy's summed log-probability of each response, in nats.

    `token_reference` holds it token by token, for objectives that ask for it. `mismatched` is a response to another prompt, for objectives that ask for one (KTO's zero point).
    """

    name: str
    prompt: list[int]
    responses: list[list[int]]
    grades: list[float]
    tiers: list[str]
    reference: list[float]
    mismatched: list[int] | None = None
    mismatched_reference: float = 0.0
    token_reference: list[list[float]] | None = None

    @property
    def query_id(self) -> str:
        """The prompt that it belongs to."""
        return self.name.rpartition(", iteration ")[0]

    def blank(self) -> "Example":
        """A list without a candidate, of a token or two: it fills a pass, and adds nothing."""
        token = self.prompt[:1]
        return Example("no list", token, [token], [], [], [], self.mismatched and token)

    @property
    def tokens(self) -> int:
        """Tokens that a pass over it reads: the prompt once, and every response."""
        return len(self.prompt) + sum(map(len, self.responses)) + len(self.mismatched or ())

    @property
    def longest(self) -> int:
        """Tokens of the prompt with its longest response."""
        return len(self.prompt) + max(map(len, [*self.responses, self.mismatched or []]))


def tokenise(
    lists: pd.DataFrame, prompt_ids: dict[str, list[int]], tokenizer, mismatched: bool = False, model=None
) -> list[Example]:
    """One Example per list, with reference 0; responses are the ids drawn, else their text and what ends it in `model`
    (see `chat.response_ids`).

    prompt_ids: the token ids of each query's prompt, as the engine encodes them, so that training reads what sampling
    read. Raises UserError for an empty response, or, with `mismatched`, lists of one prompt only.
    """
    for doc_id, text in zip(lists["doc_id"], lists["text"]):
        if not text:
            raise UserError(f"response {doc_id} is empty; remove it from the lists")
    lists = lists.assign(ids=response_ids(lists, model, tokenizer).ids)
    out, queries = [], []
    for (query_id, iteration, number), group in lists.groupby(["query_id", "iteration", "list"], sort=False):
        responses = group["ids"].tolist()
        name = f"{query_id}, iteration {iteration}, list {number}"
        tiers, zeros = group["tier"].tolist(), [0.0] * len(group)
        out.append(Example(name, prompt_ids[query_id], responses, group["grade"].tolist(), tiers, zeros))
        queries.append(query_id)
    return _with_mismatched(out, queries) if mismatched else out


def _with_mismatched(examples: list[Example], queries: list[str]) -> list[Example]:
    """Each list with the first response of the next list that belongs to another prompt."""
    if len(set(queries)) < 2:
        raise UserError(
            "this objective compares with responses to other prompts: it needs lists of two prompts or more"
        )
    out, count = [], len(examples)
    for i, example in enumerate(examples):
        other = next(j % count for j in range(i + 1, i + count) if queries[j % count] != queries[i])
        out.append(replace(example, mismatched=examples[other].responses[0]))
    return out


def fitting(examples: list[Example], limit: int | None) -> list[Example]:
    """The lists of which every response fits into `limit` tokens with its prompt: a list goes whole or not at all."""
    return [e for e in examples if limit is None or e.longest <= limit]


def shuffled(examples: list[Example], seed: int) -> list[Example]:
    """Each list with its grades in another order, a function of the seed and the list's name: a placebo, which has the
    same responses, grades and steps, and no judgement."""
    out = []
    for example in examples:
        rng = np.random.default_rng([seed, *example.name.encode("utf-8", "surrogatepass")])
        out.append(replace(example, grades=[example.grades[i] for i in rng.permutation(len(example.grades))]))
    return out


def collate(examples: Sequence[Example], pad: int, rows: Layout) -> dict:
    """A batch: `packed`, `names`, `tiers`, and [B, L] tensors `grade`, `reference`, `length`, `mask`.

    Where lists have it, `token_reference` is [T], in the order of `packed.target`. Mismatched responses are a batch of their own, `mismatched_packed`, with `mismatched_reference` and
    `mismatched_length`, [B]. Blank lists (`Example.blank`) are left out beside others; alone they have no candidate.
    """
    examples = [e for e in examples if e.grades] or examples[:1]
    length = max(len(e.responses) for e in examples)

    def padded(values: list[list[float]]) -> torch.Tensor:
        return torch.tensor([[*v, *[0.0] * (length - len(v))] for v in values])

    prompts = [e.prompt for e in examples]
    batch = {
        "packed": pack(prompts, [e.responses for e in examples], rows, pad),
        "names": [e.name for e in examples],
        "tiers": [e.tiers for e in examples],
        "grade": padded([e.grades for e in examples]),
        "reference": padded([e.reference for e in examples]),
        "length": padded([[float(len(r)) for r in e.responses] for e in examples]),
        "mask": padded([[1.0] * len(e.grades) for e in examples]).bool(),
    }
    if any(e.token_reference for e in examples):
        by_token = [some for e in examples for some in e.token_reference or [[0.0] * len(r) for r in e.responses]]
        batch["token_reference"] = torch.tensor([value for some in by_token for value in some])
    if examples[0].mismatched:
        batch["mismatched_packed"] = pack(prompts, [[e.mismatched] for e in examples], rows, pad)
        batch["mismatched_length"] = torch.tensor([float(len(e.mismatched)) for e in examples])
        batch["mismatched_reference"] = torch.tensor([e.mismatched_reference for e in examples])
    return batch


@torch.no_grad()
def with_reference(
    model,
    examples: list[Example],
    pad: int,
    batch_size: int,
    autocast: bool = False,
    pack_up_to: int | None = None,
    by_token: bool = False,
) -> list[Example]:
    """`examples` with the log-probabilities under `model`: computed once, before it is trained. `by_token`: those of the
    single tokens too. (Seven parameters: how the trainer reads them is how they must be read here.)"""
    model.eval()
    rows = layout(model, pack_up_to)
    order = sorted(range(len(examples)), key=lambda i: examples[i].tokens)
    found: dict[int, Example] = {}
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        batch = collate([examples[i] for i in chosen], pad, rows)
        packed: list[Packed] = [batch[name] for name in ("packed", "mismatched_packed") if name in batch]
        with torch.autocast(model.device.type, torch.bfloat16, enabled=autocast):  # as the trainer runs it
            first, *other = [some.to(model.device) for some in packed]
            tokens = token_logprobs(model, first)
            values = summed(first, tokens).tolist()
            other = [response_logprobs(model, some).tolist() for some in other]
        singles = iter(tokens.tolist() if by_token else ())
        for place, i in enumerate(chosen):
            reference = values[place][: len(examples[i].responses)]
            found[i] = replace(examples[i], reference=reference)
            if by_token:
                each = [[next(singles) for _ in response] for response in examples[i].responses]
                found[i] = replace(found[i], token_reference=each)
            if other:
                found[i] = replace(found[i], mismatched_reference=other[0][place][0])
    return [found[i] for i in range(len(examples))]


def read_scores(model, packed: Packed, read: Sequence, token_reference=None, squared: bool = False, **more) -> Scores:
    """What a loss reads of a batch: its log-probabilities under `model`, with gradient, and `read`, which is reference,
    length, grade and mask. token_reference: [T], for losses that go by the token. squared: for WPO's weights."""
    tokens = token_logprobs(model, packed, squared)
    if squared:
        tokens, beside = tokens.unbind(-1)
        more["squared"] = summed(packed, beside.detach())
    if token_reference is not None:
        more["by_token"] = Tokens(tokens, token_reference, packed.owner)
    return Scores(summed(packed, tokens), *read, **more)


def check_vocabulary(model, examples: list[Example], describe: Callable[[], str]) -> None:
    """Raises UserError if a token id has no row in the model's embedding: tokenizer and model do not belong together."""
    rows = model.get_input_embeddings().num_embeddings
    largest = max(max(map(max, [e.prompt, *e.responses])) for e in examples)
    if largest >= rows:
        raise UserError(f"{describe()}: the tokenizer gives token id {largest}, the model knows {rows} tokens only")
