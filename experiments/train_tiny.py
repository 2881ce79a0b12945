"""Trains an embedded model from scratch on the `pretrain` split of its task (about 10 minutes on one CPU core).

    python experiments/train_tiny.py --out irlens/models/tiny
    python experiments/train_tiny.py --out part1 --task countdown --heads 3 --key-value-heads 3 --vocabulary 320
    python experiments/train_tiny.py --out sums-33m --hidden-size 512 --layers 11 --heads 8 --intermediate-size 1408 --device cuda

The second is the first part of `tiny-countdown`, whose README has both. The third makes a model of 33 million parameters
on a GPU; how many `--steps` it wants, `greedy_validation` has to show: `--until 0.5` ends the plateau once that share of
validation problems is solved, `--minutes 3` once the time is over.

Response-only cross-entropy on batches of equal length; half of the problems bring their calculations along as bare
drills (`17+8=`). Muon on the hidden matrices, AdamW on the rest; warm-up, plateau, linear decay. It stops early on
purpose: a policy that is right about half of the time leaves room for alignment, and its errors make negatives.
"""

import argparse
import itertools
import json
import random
import re
import time
from pathlib import Path

import torch
from rich.progress import track
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from irlens.models.catalog import PLAIN_PROMPT
from irlens.tasks import countdown, gsm8k, sums

TASKS = {"sums": (sums, gsm8k.is_correct), "countdown": (countdown, countdown.is_correct)}  # problems, and who judges
STEP = {"sums": re.compile(r"<<(\S+?)=(\S+?)>>"), "countdown": re.compile(r"^(\S+?)=(\S+)$", re.MULTILINE)}
END, PAD = "<|end|>", "<|pad|>"


def tokenizer(vocab_size: int, texts: list[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE with every digit a token of its own."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=[PAD, END],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token=END, pad_token=PAD, clean_up_tokenization_spaces=False
    )


def examples(task: str, seed: int, drills: float):
    """An endless stream of (prompt, response): problems of `pretrain`, and bare calculations such as `17+8=`."""
    rng = random.Random(seed)
    for problem in TASKS[task][0].problems("pretrain", seed):
        if rng.random() < drills:
            for left, right in STEP[task].findall(problem["solution"]):
                yield f"{left}=", right
        yield PLAIN_PROMPT.format(query=problem["query"]), problem["solution"]


def batches(tok, task: str, tokens: int, seed: int, drills: float, pool: int = 512):
    """Right-padded batches of about `tokens` tokens, each of similar lengths: (ids, labels), [rows, length]."""
    stream = examples(task, seed, drills)
    rng = random.Random(seed + 1)
    while True:
        some = list(itertools.islice(stream, pool))
        prompts = tok([p for p, _ in some])["input_ids"]
        responses = tok([r for _, r in some])["input_ids"]
        rows = sorted(
            ((p, r + [tok.eos_token_id]) for p, r in zip(prompts, responses)), key=lambda row: sum(map(len, row))
        )
        groups, start = [], 0
        while start < len(rows):
            stop = start
            while stop < len(rows) and (stop - start + 1) * sum(map(len, rows[stop])) <= tokens:
                stop += 1
            groups.append(rows[start:stop])
            start = stop
        rng.shuffle(groups)
        for group in groups:
            width = max(len(p) + len(r) for p, r in group)
            ids = torch.full((len(group), width), tok.pad_token_id)
            labels = torch.full((len(group), width), -100)
            for i, (p, r) in enumerate(group):
                ids[i, : len(p) + len(r)] = torch.tensor(p + r)
                labels[i, len(p) : len(p) + len(r)] = torch.tensor(r)
            yield ids, labels


@torch.no_grad()
def greedy_accuracy(model, tok, task: str, split: str, limit: int) -> float:
    """Share of `limit` problems of `split` that greedy decoding solves."""
    problems, is_correct = TASKS[task]
    topics = problems.take(split, limit)
    tok.padding_side = "left"
    batch = tok(
        [PLAIN_PROMPT.format(query=t["query"]) for t in topics],
        return_tensors="pt",
        padding=True,
        return_token_type_ids=False,
    ).to(model.device)
    out = model.generate(**batch, max_new_tokens=100, do_sample=False)
    texts = tok.batch_decode(out[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    return sum(is_correct(text, t["answer"]) for text, t in zip(texts, topics)) / limit


class Plateau:
    """The steps before the decay: at most `steps`, fewer once `until` is reached or `minutes` are over."""

    def __init__(self, steps: int, until: float, minutes: float):
        self.end, self.until, self.stop_at = steps, until, time.monotonic() + 60 * minutes

    def look(self, step: int, accuracy: float | None) -> None:
        """Ends it after `step` if it is to end; accuracy: on validation problems, where it was measured."""
        if step < self.end and (time.monotonic() > self.stop_at or (accuracy or 0) >= self.until):
            self.end = step


def parsed() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--task", choices=list(TASKS), default="sums")
    parser.add_argument("--start", type=Path, help="a folder that this script wrote, to go on from")
    parser.add_argument("--rate", type=float, default=0.02, help="of Muon; AdamW's is 0.15 of it")
    parser.add_argument("--steps", type=int, default=1250, help="steps before the decay")
    parser.add_argument("--decay", type=int, default=150, help="steps of linear decay to zero")
    parser.add_argument("--warmup", type=int, default=50)
    parser.add_argument("--tokens", type=int, default=2600, help="tokens in a batch, padding included")
    parser.add_argument("--drills", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--hidden-size", type=int, default=96)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--heads", type=int, default=4, help="attention heads")
    parser.add_argument("--key-value-heads", type=int, help="default: half as many")
    parser.add_argument("--vocabulary", type=int, default=640, help="tokens, at most")
    parser.add_argument("--intermediate-size", type=int, default=256)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--until", type=float, default=2.0, help="share of validation solved that starts the decay")
    parser.add_argument("--minutes", type=float, default=1e9, help="after which the decay starts")
    parser.add_argument("--every", type=int, default=100, help="steps between two looks at validation")
    return parser.parse_args()


def start(args: argparse.Namespace):
    """(model, tokenizer) to train: new ones by the options, or those of `--start`."""
    if args.start:
        tok = PreTrainedTokenizerFast.from_pretrained(args.start)
        return LlamaForCausalLM.from_pretrained(args.start).to(args.device), tok
    texts = [part for pair in itertools.islice(examples(args.task, args.seed, 0.0), 4000) for part in pair]
    tok = tokenizer(args.vocabulary, texts)
    config = LlamaConfig(
        vocab_size=len(tok),
        hidden_size=args.hidden_size,
        num_hidden_layers=args.layers,
        num_attention_heads=args.heads,
        num_key_value_heads=args.key_value_heads or args.heads // 2,
        intermediate_size=args.intermediate_size,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        rope_theta=10000.0,
        bos_token_id=None,
        eos_token_id=tok.eos_token_id,
        pad_token_id=tok.pad_token_id,
    )
    return LlamaForCausalLM(config).to(args.device), tok


def optimizers(model, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the hidden matrices at `rate`, AdamW for the rest at 0.15 of it."""
    hidden = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    rest = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    return [
        torch.optim.Muon(hidden, lr=rate, weight_decay=0.0),
        torch.optim.AdamW(rest, lr=0.15 * rate, weight_decay=0.0),
    ]


def train(model, tok, args: argparse.Namespace) -> tuple[list[dict], int]:
    """Trains `model` in place; returns its log (loss, and validation problems solved, every `--every` steps) and how many
    tokens it read."""
    plateau = Plateau(args.steps, args.until, args.minutes)
    rate = lambda s: min((s + 1) / args.warmup, 1.0, (plateau.end + args.decay - s) / args.decay)  # noqa: E731
    both = optimizers(model, args.rate)
    schedules = [torch.optim.lr_scheduler.LambdaLR(o, rate) for o in both]
    log, trained, stream = [], 0, batches(tok, args.task, args.tokens, args.seed, args.drills)
    for step in track(range(1, args.steps + args.decay + 1), description="training tiny"):
        ids, labels = (part.to(args.device) for part in next(stream))
        loss = model(input_ids=ids, attention_mask=(ids != tok.pad_token_id).long(), labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, schedule in zip(both, schedules):
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
        trained += ids.numel()
        last, accuracy = step == plateau.end + args.decay, None
        if step % args.every == 0 or last:
            accuracy = greedy_accuracy(model, tok, args.task, "validation", 200)
            log.append({"step": step, "loss": round(loss.item(), 4), "greedy_validation": accuracy})
            print(json.dumps(log[-1]), flush=True)
        plateau.look(step, accuracy)
        if last:
            break
    return log, trained


def save(model, tok, args: argparse.Namespace, log: list[dict], trained: int) -> None:
    """Writes model, tokenizer and the record of the training, with that of `--start` inside it."""
    model.generation_config.do_sample = True
    model.save_pretrained(args.out)
    tok.padding_side = "right"
    tok.save_pretrained(args.out)
    settings = {k: v for k, v in vars(args).items() if k not in ("out", "start")}
    before = json.loads((args.start / "training.json").read_text()) if args.start else None
    record = {"before": before} if before else {}
    record |= {"settings": settings, "parameters": model.num_parameters(), "tokens": trained, "log": log}
    base = "tiny" if args.task == "sums" else f"tiny-{args.task}"
    (args.out / "irlens.json").write_text(json.dumps({"base": base}) + "\n")
    (args.out / "training.json").write_text(json.dumps(record, indent=1) + "\n")


def main() -> None:
    """Trains a model by the options, and writes it."""
    args = parsed()
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    model, tok = start(args)
    save(model, tok, args, *train(model, tok, args))


if __name__ == "__main__":
    main()
