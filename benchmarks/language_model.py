"""How good are language models from `pretrain`? WikiText-2, compared with published figures for the same size.

    python benchmarks/language_model.py FOLDER [--batch-size 20 ...]

The language model is written to FOLDER, and an interrupted run resumes there. An article is one document, so that the
network's state carries over from one paragraph to the next. Published figure for two LSTMs of 200 with tied word
vectors after six epochs: 110.4 on the test file (PyTorch's example `word_language_model`).

Perplexity is per whitespace-separated word and line end; if fastai's rules split a word into several tokens, their
losses add up.
"""

import argparse
import math
import re
from pathlib import Path
from typing import Any

import torch

from textladder.language_models import load_language_model
from textladder.networks.awd_lstm import AWDLSTM, LanguageModel
from textladder.networks.next_word_loss import NextWordLoss
from textladder.progress import SpeakingMonitor
from textladder.text.fastai_words import SPECIAL_TOKENS, tokenize_words
from textladder.text.vocabulary import Vocabulary
from textladder.training.pretraining import pretrain
from textladder.training.word_streams import WordStream

WIKITEXT = Path(__file__).parents[2] / "shared" / "data" / "wikitext-2"
TITLE = re.compile(r" = [^=].* = \n")


def articles(path: Path) -> list[str]:
    """The articles of a WikiText file, each on one line; a section heading does not start an article.

    Every line end, even a blank line's, stays as `\\n`, which fastai's rules read as a line end: it counts as a word,
    as in the published figures.
    """
    found: list[list[str]] = []
    before = "\n"
    for line in path.open(encoding="utf-8"):
        if not found or (TITLE.fullmatch(line) and not before.strip()):
            found.append([])
        found[-1].append(line.strip())
        before = line
    return [" ".join(f"{line} \\n" for line in lines) for lines in found if any(lines)]


def perplexity(folder: Path, texts: list[str]) -> float:
    """Perplexity of a language model on documents, per written word; the end of a document counts as one."""
    model = load_language_model(str(folder))
    sizes = {name: model.sizes[name] for name in ("dimension", "hidden_size", "layers")}
    network = LanguageModel(AWDLSTM(len(model.words), **sizes)).eval()
    network.load_state_dict({name: torch.from_numpy(value) for name, value in model.weights.items()})
    encoded = Vocabulary(model.words, special_tokens=SPECIAL_TOKENS[:2]).encode_tokenized(tokenize_words(iter(texts)))
    stream, loss = WordStream(encoded, batch_size=1, time=2000), NextWordLoss(network)
    total = 0.0
    with torch.no_grad():
        for words, following in stream:
            total += float(loss(network(words), following)) * following.numel()
    return math.exp(total / sum(len(text.split()) + 1 for text in texts))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--batch-size", type=int, default=20)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--dropout", type=float, default=0.2)
    parser.add_argument("--epochs", type=int, default=6)
    given = vars(parser.parse_args())
    folder: Path = given.pop("folder")
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for part in ("train", "valid", "test"):
        files[part] = folder / f"{part}.txt"
        files[part].write_text("".join(f"{text}\n" for text in articles(WIKITEXT / f"{part}.txt")), encoding="utf-8")
    out = folder / "language-model"
    if not out.exists():
        sizes: dict[str, Any] = {"dimension": 200, "hidden_size": 200, "layers": 2}
        sizes |= {"max_vocabulary": 40_000, "min_freq": 1}
        held_out = str(files["valid"])
        metrics = pretrain([files["train"]], out, held_out_file=held_out, monitor=SpeakingMonitor(), **sizes, **given)
        print(f"validation perplexity: {metrics['perplexity_per_written_word']:.1f} per written word, "
              f"{metrics['seconds'] / 60:.0f} minutes", flush=True)  # fmt: skip
    print(f"test perplexity: {perplexity(out, articles(WIKITEXT / 'test.txt')):.1f} per written word")


if __name__ == "__main__":
    main()
