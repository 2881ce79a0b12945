"""How alike texts are: the same but for white space, and by their words edit similarity and self-BLEU."""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

WORD = re.compile(r"[0-9]+(?:[.,][0-9]+)*|[^\W\d_]+|[-+*/=<>%^]")  # numbers, words, signs of a calculation


def without_spacing(text: str) -> str:
    """What texts that differ in white space alone have in common: they are one and the same text."""
    return " ".join(text.split())


def words(text: str) -> list[str]:
    """Lower-cased words, numbers (1,000 is 1000) and signs of calculation; the rest of the punctuation says nothing."""
    found = WORD.findall(unicodedata.normalize("NFKC", text).replace("−", "-").lower())
    return [word.replace(",", "") if word[0].isdigit() else word for word in found]


def edit_similarity(a: Sequence[str], b: Sequence[str]) -> float:
    """1 − (insertions + deletions that turn a into b) / (|a| + |b|): 1 for equal sequences, 0 for nothing in common.

    It equals 2 · LCS / (|a| + |b|) with the longest common subsequence. Two empty sequences are equal.
    """
    from rapidfuzz.distance import LCSseq

    return 2 * LCSseq.similarity(a, b) / (len(a) + len(b)) if a or b else 1.0


def self_bleu(texts: Sequence[str], order: int = 4) -> float:
    """Mean BLEU of each text against the others as references: 1 if all are equal, near 0 if they share no words.

    BLEU: the geometric mean of clipped n-gram precisions, n = 1 … `order`, times the brevity penalty against the
    reference nearest in length; 1 is added to matches and count for n > 1, so that a short text has a value (Lin and
    Och 2004). NaN for fewer than two texts. Source: Zhu et al. 2018 (Texygen). Written here, not taken from sacrebleu:
    that splits texts by rules of its own, and would count every text's n-grams anew for each of the others.
    """
    if len(texts) < 2:
        return math.nan
    split = [words(text) for text in texts]
    return sum(_bleu(one, split[:i] + split[i + 1 :], order) for i, one in enumerate(split)) / len(split)


def _bleu(text: list[str], references: list[list[str]], order: int) -> float:
    if not text:
        return float(any(not reference for reference in references))
    logs = 0.0
    for n in range(1, order + 1):
        own = _ngrams(text, n)
        most: Counter = Counter()
        for reference in references:
            most |= _ngrams(reference, n)
        matches, total = (own & most).total(), own.total()
        if n == 1 and not matches:
            return 0.0
        smooth = n > 1
        logs += math.log((matches + smooth) / (total + smooth))
    nearest = min((abs(len(r) - len(text)), len(r)) for r in references)[1]
    return math.exp(logs / order + min(0.0, 1 - nearest / len(text)))


def _ngrams(text: list[str], n: int) -> Counter:
    return Counter(zip(*(text[i:] for i in range(n))))
