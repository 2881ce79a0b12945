"""Lists of random tokens, as a trainer reads them."""

import torch

from irlens.train.data import Example


def examples(count, width=3):
    """Lists of random tokens, each informative."""
    generator = torch.Generator().manual_seed(0)

    def some(low, high):
        size = int(torch.randint(low, high, (1,), generator=generator))
        return torch.randint(5, 300, (size,), generator=generator).tolist()

    return [
        Example(
            f"q{i}, iteration 1, list 0",
            some(3, 9),
            [[*some(2, 7), 1] for _ in range(width)],
            [1.0] + [0.0] * (width - 1),
            ["positive"] + ["own"] * (width - 1),
            [0.0] * width,
        )
        for i in range(count)
    ]
