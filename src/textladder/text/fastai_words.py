"""fastai's words: its text rules (`xxbos`, `xxmaj`, `xxrep`, ...), then spaCy's English tokenizer.

First step of `ulmfit`, so that language models trained with fastai can be used. The rules are written out here, because
importing fastai takes longer than the rest of a prediction; a test compares them with fastai's own. Of spaCy only the
rules are used (`word_rules.py`); they are applied without it and saved with a classifier. What neither of them splits,
a sentence in a script that does not separate its words, is split into characters.
"""

import html
import json
import re
import sys
from array import array
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from itertools import chain, islice
from queue import SimpleQueue
from subprocess import PIPE, Popen, run
from typing import IO, Any

import numpy as np

from textladder.cores import available_cores
from textladder.errors import import_extra
from textladder.text.ngrams import UNSPACED, tokens
from textladder.text.tokenizer import Split, TokenizedTexts, combine, in_batches, in_parallel
from textladder.text.word_rules import WordRules

# The first is for unknown words, the second for padding; `xxbos` begins a text.
SPECIAL_TOKENS = ("xxunk", "xxpad", "xxbos", "xxeos", "xxfld", "xxrep", "xxwrep", "xxup", "xxmaj")

# Leftovers of web pages and older corpora, with their replacements, in the order of replacing.
LEFT_OVERS = (
    ("#39;", "'"), ("amp;", "&"), ("#146;", "'"), ("nbsp;", " "), ("#36;", "$"), ("\\n", "\n"), ("quot;", "'"),
    ("<br />", "\n"), ('\\"', '"'), ("<unk>", "xxunk"), (" @.@ ", "."), (" @-@ ", "-"), ("...", " …"),
)  # fmt: skip
REPEATED_CHARACTER = re.compile(r"(\S)\1{2,}")
REPEATED_WORD = re.compile(r"(?:^|\s)(\w+)((?:\s+\1){2,})(\s|\W|$)")
SPACED_OUT = re.compile(r"[/#\\]")
SPACES = re.compile(" {2,}")
UPPER_CASE = re.compile(r"[A-Z]+[^a-z\s]*")
CAPITALISED = re.compile(r"[A-Z][^A-Z\s]*")
# spaCy splits each chunk between white space by itself; one space after a word is dropped, other white space is kept
CHUNK = re.compile(r"\S+|(?! )\s+")

TEXTS_AT_ONCE = 1024
MIN_BATCHES_FOR_PROCESSES = 4  # fewer are done before another process has started
MAX_CACHED_CHUNKS = 500_000


def fastai_words(text: str, rules: WordRules | None = None) -> list[str]:
    """Split a text into lower-case words, with special tokens for what lower case loses.

    >>> fastai_words("It's SO good!!!!")
    ['xxbos', 'xxmaj', 'it', "'s", 'xxup', 'so', 'good', 'xxrep', '4', '!']

    Args:
        text: the text.
        rules: the tokenizer; by default spaCy's English one.

    Raises:
        MissingExtraError: there are no rules and spaCy is not installed.
    """
    rules = rules or spacy_rules()
    words = ["xxbos"]
    for chunk in _chunks(text):
        words += _words_of(chunk, rules)
    return words


def tokenize_words(texts: Iterable[str], rules: WordRules | None = None) -> TokenizedTexts:
    """Apply `fastai_words` to many texts, in several processes if there are enough of them.

    Args:
        texts: the texts.
        rules: the tokenizer; by default spaCy's English one.

    Raises:
        MissingExtraError: there are no rules and spaCy is not installed.
    """
    rules = rules or spacy_rules()
    batches = in_batches(texts, TEXTS_AT_ONCE)
    first_batches = list(islice(batches, MIN_BATCHES_FOR_PROCESSES))
    if len(first_batches) < MIN_BATCHES_FOR_PROCESSES or not sys.executable:
        return combine(map(_Splitter(rules), first_batches))
    with _Processes(available_cores(), rules) as processes:
        return combine(in_parallel(processes.split, chain(first_batches, batches)))


class _Splitter:
    """Splits batches of texts; the words of a chunk are remembered."""

    def __init__(self, rules: WordRules) -> None:
        self.rules = rules
        self.known_chunks: dict[str, list[str]] = {}

    def __call__(self, texts: list[str]) -> Split:
        numbers: dict[str, int] = {"xxbos": 0}
        chunk_ids: dict[str, list[int]] = {}
        ids, lengths = array("i"), array("q")
        for text in texts:
            start = len(ids)
            ids.append(0)
            for chunk in _chunks(text):
                found = chunk_ids.get(chunk)
                if found is None:
                    found = chunk_ids[chunk] = [numbers.setdefault(word, len(numbers)) for word in self._words(chunk)]
                ids.extend(found)
            lengths.append(len(ids) - start)
        return list(numbers), np.array(ids, np.int32), np.array(lengths, np.int64)

    def _words(self, chunk: str) -> list[str]:
        words = self.known_chunks.get(chunk)
        if words is None:
            if len(self.known_chunks) >= MAX_CACHED_CHUNKS:
                self.known_chunks.clear()
            words = self.known_chunks[chunk] = _words_of(chunk, self.rules)
        return words


class _Processes:
    """Processes that split texts, each used by one thread at a time, because Python threads do not run in parallel."""

    def __init__(self, number: int, rules: WordRules) -> None:
        command = [sys.executable, "-P", "-m", __name__]  # -P: import nothing from the working folder
        # in sessions of their own, so that Ctrl-C ends them only by closing their input
        self.all = [Popen(command, stdin=PIPE, stdout=PIPE, start_new_session=True) for _ in range(number)]  # noqa: S603
        self.idle: SimpleQueue[Popen[bytes]] = SimpleQueue()
        content = json.dumps(rules.as_json()).encode()
        for process in self.all:
            assert process.stdin is not None
            with suppress(BrokenPipeError):  # `split` reports a process that has exited
                _send(process.stdin, content)
            self.idle.put(process)

    def __enter__(self) -> "_Processes":
        return self

    def __exit__(self, *error: object) -> None:
        for process in self.all:
            process.communicate()  # closes its input, after which it exits

    def split(self, texts: list[str]) -> Split:
        process = self.idle.get()
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            _send(process.stdin, json.dumps(texts).encode())
            words, ids, lengths = (_receive(process.stdout) for _ in range(3))
        except (BrokenPipeError, EOFError):
            raise RuntimeError(f"A process that splits texts exited unexpectedly (status {process.poll()}).") from None
        finally:
            self.idle.put(process)
        return json.loads(words), np.frombuffer(ids, np.int32), np.frombuffer(lengths, np.int64)


def _send(stream: IO[bytes], content: bytes) -> None:
    stream.write(len(content).to_bytes(8, "little") + content)
    stream.flush()


def _receive(stream: IO[bytes]) -> bytes:
    size = stream.read(8)
    if not size:
        raise EOFError
    return stream.read(int.from_bytes(size, "little"))


def _serve() -> None:
    """Receive the rules, then split batches of texts until the input is closed."""
    with suppress(EOFError):
        splitter = _Splitter(WordRules.from_json(json.loads(_receive(sys.stdin.buffer))))
        while True:
            words, ids, lengths = splitter(json.loads(_receive(sys.stdin.buffer)))
            for content in (json.dumps(words).encode(), ids.tobytes(), lengths.tobytes()):
                _send(sys.stdout.buffer, content)


def apply_text_rules(text: str) -> str:
    """Apply fastai's rules that look across words; those about capitals are applied to each word."""
    for left_over, meaning in LEFT_OVERS:
        text = text.replace(left_over, meaning)
    text = REPEATED_CHARACTER.sub(lambda found: f" xxrep {len(found[0])} {found[1]} ", html.unescape(text))
    text = REPEATED_WORD.sub(lambda found: f" xxwrep {len(found[2].split()) + 1} {found[1]} {found[3]}", text)
    return SPACES.sub(" ", SPACED_OUT.sub(r" \g<0> ", text))


def _chunks(text: str) -> list[str]:
    return CHUNK.findall(apply_text_rules(text).strip())


def _words_of(chunk: str, rules: WordRules) -> list[str]:
    special = []
    if UPPER_CASE.fullmatch(chunk):
        special = ["xxup"] if len(chunk) > 1 else []
    elif CAPITALISED.fullmatch(chunk):
        special = ["xxmaj"]
    words = rules.split(chunk.lower())
    if rules.unspaced and UNSPACED.search(chunk):
        words = [part for word in words for part in (tokens(word) if UNSPACED.search(word) else [word])]
    return [*special, *(word.replace(" ", "▁") for word in words)]


@cache
def spacy_rules() -> WordRules:
    """The rules of spaCy's English tokenizer.

    spaCy imports torch if it can, which takes twice as long as spaCy itself and is of no use to a tokenizer. Unless one
    of them is imported already, the rules are read in another process, in which torch is hidden.

    Raises:
        MissingExtraError: spaCy is not installed.
    """
    imported = not sys.modules.keys().isdisjoint(("spacy", "torch"))
    if not imported and find_spec("spacy") and find_spec("torch") and sys.executable:
        done = run([sys.executable, "-P", "-m", __name__, "rules"], capture_output=True, check=False)  # noqa: S603
        if done.returncode == 0:
            return WordRules.from_json(json.loads(done.stdout))
        # what went wrong there is raised by the same import here
    return WordRules.from_spacy(spacy_tokenizer(), unspaced=True)


def spacy_tokenizer() -> Any:
    """spaCy's English tokenizer, which keeps the special tokens whole.

    Raises:
        MissingExtraError: spaCy is not installed.
    """
    tokenizer = import_extra("spacy", "train").blank("en").tokenizer
    for token in SPECIAL_TOKENS:
        tokenizer.add_special_case(token, [{"ORTH": token}])
    return tokenizer


def _print_rules() -> None:
    """Print spaCy's rules as JSON, from a process that does nothing else."""
    sys.modules["torch"] = None  # type: ignore[assignment]
    print(json.dumps(WordRules.from_spacy(spacy_tokenizer(), unspaced=True).as_json()))


if __name__ == "__main__":
    _print_rules() if sys.argv[1:] == ["rules"] else _serve()
