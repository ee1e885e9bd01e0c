"""How much faster are texts turned into token ids than by the tutorial's loops?

    python benchmarks/tokenizing.py [IMDB_CSV]

The tutorial's way: one loop that tokenizes every text with compiled regular expressions and counts, then the
vocabulary, then a second loop that tokenizes every text again and looks every token up. textladder's way:
`tokenize`, `Vocabulary.from_tokenized`, `encode_tokenized`. Both run in turn on the same texts and give the same ids.
"""

import gc
import re
import statistics
import sys
import time
from collections import Counter
from pathlib import Path

from textladder.data.row_files import open_rows
from textladder.text.tokenizer import RULES, tokenize
from textladder.text.vocabulary import EncodedTexts, Vocabulary

DEFAULT = Path(__file__).parents[2] / "shared" / "data" / "imdb" / "train.csv.gz"
PATTERNS = [(re.compile(re.escape(pattern)), replacement) for pattern, replacement in RULES]
ROUNDS = 5


def split(text: str) -> list[str]:
    text = text.lower()
    for pattern, replacement in PATTERNS:
        text = pattern.sub(replacement, text)
    return text.split()


def tutorial(texts: list[str], twice: bool) -> list[list[int]]:
    """The tutorial's loops; without `twice`, texts are tokenized once, unlike in the tutorial."""
    counter: Counter[str] = Counter()
    kept = []
    for text in texts:
        tokens = split(text)
        counter.update(tokens)
        if not twice:
            kept.append(tokens)
    vocabulary = {"<unk>": 0, "<pad>": 1}
    for token, count in counter.most_common():
        if count >= 20:
            vocabulary[token] = len(vocabulary)
    return [[vocabulary.get(token, 0) for token in tokens] for tokens in (map(split, texts) if twice else kept)]


def ours(texts: list[str]) -> EncodedTexts:
    tokens = tokenize(texts)
    return Vocabulary.from_tokenized(tokens, min_freq=20).encode_tokenized(tokens)


def main(path: Path) -> None:
    source = open_rows(path)
    texts = [text or "" for batch in source.batches() for text in source.column(batch, "text")]
    encoded = ours(texts)
    same = all(encoded[index].tolist() == ids for index, ids in enumerate(tutorial(texts, twice=True)))
    assert same, "the two do not give the same ids"
    seconds: dict[str, list[float]] = {"tutorial": [], "tutorial, tokenizing once": [], "textladder": []}
    for _ in range(ROUNDS):
        for name, times in seconds.items():
            gc.collect()
            started = time.perf_counter()
            if name == "textladder":
                ours(texts)
            else:
                tutorial(texts, twice=name == "tutorial")
            times.append(time.perf_counter() - started)
    print(f"{len(texts):,} texts of {path.name}, {sum(map(len, texts)) / 1e6:.1f} million characters; {ROUNDS} rounds")
    for name, times in seconds.items():
        ratios = [one / other for one, other in zip(times, seconds["textladder"], strict=True)]
        print(f"{name:<26} {statistics.median(times):6.2f} s   {statistics.median(ratios):5.2f} times textladder's")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT)
