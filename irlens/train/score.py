"""How likely a policy finds given texts: log π(text | prompt), also for texts that it did not draw."""

from collections.abc import Callable, Sequence

import pandas as pd

AT_ONCE = 16  # responses that share one prompt in a row; a mask grows with the square of the row
TOKENS = 8192  # of a batch, about


def score_texts(
    model,
    tokenizer,
    prompt_ids: dict[str, list[int]],
    query_ids: Sequence[str],
    texts: Sequence[str],
    on_batch: Callable[[int], None] | None = None,
) -> pd.DataFrame:
    """Columns logprob (sum over the tokens of text and end-of-sequence, nats, temperature 1) and n_tokens, in order.

    prompt_ids: the token ids of each query's prompt, as the engine encodes them. A text is encoded anew, so a draw whose
    text has several encodings may score otherwise than when it was drawn. on_batch(n) is told of n texts scored.
    """
    import torch

    from irlens.train.logprobs import pack, response_logprobs, shares_prefix

    encoded = tokenizer(list(texts), add_special_tokens=False)["input_ids"] if len(texts) else []
    responses = [ids + [tokenizer.eos_token_id] for ids in encoded]
    values, share, pad = [0.0] * len(responses), shares_prefix(model), tokenizer.pad_token_id or 0
    model.eval()
    for batch in _batches(list(query_ids), responses, prompt_ids):
        prompts = [prompt_ids[query_ids[rows[0]]] for rows in batch]
        packed = pack(prompts, [[responses[i] for i in rows] for rows in batch], pad, share).to(model.device)
        with torch.no_grad():
            found = response_logprobs(model, packed).tolist()
        for rows, row in zip(batch, found):
            for i, value in zip(rows, row):
                values[i] = value
        if on_batch:
            on_batch(sum(map(len, batch)))
    return pd.DataFrame({"logprob": values, "n_tokens": [len(response) for response in responses]})


def _batches(query_ids: list[str], responses: list[list[int]], prompt_ids: dict) -> list[list[list[int]]]:
    """Batches of lists of row numbers; a list has one query, and lists of similar length share a batch."""
    of: dict[str, list[int]] = {}
    for i, query_id in enumerate(query_ids):
        of.setdefault(query_id, []).append(i)
    lists = [rows[start : start + AT_ONCE] for rows in of.values() for start in range(0, len(rows), AT_ONCE)]
    length = [len(prompt_ids[query_ids[rows[0]]]) + sum(len(responses[i]) for i in rows) for rows in lists]
    batches, widest = [], 0
    for number in sorted(range(len(lists)), key=length.__getitem__, reverse=True):
        if not batches or (len(batches[-1]) + 1) * widest > TOKENS:
            batches.append([])
            widest = length[number]
        batches[-1].append(lists[number])
    return batches
