"""fastai's words: its text rules (`xxbos`, `xxmaj`, `xxrep`, ...), then spaCy's English tokenizer.

First step of `ulmfit`, so that language models of fastai's can be read. The rules are written out here, and held to
fastai's own by a test, because importing fastai takes longer than everything else that a prediction does. spaCy is
asked for its rules alone (`word_rules.py`), which are applied without it and kept with a classifier.
"""

import html
import json
import re
import sys
from array import array
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from itertools import chain, islice
from queue import SimpleQueue
from subprocess import PIPE, Popen
from typing import IO, Any

import numpy as np

from textladder.cores import available_cores
from textladder.errors import import_extra
from textladder.text.tokenizer import Split, TokenizedTexts, in_batches, in_parallel, put_together
from textladder.text.word_rules import WordRules

# The first stands for words that are not known, the second fills up; `xxbos` begins a text.
SPECIAL_TOKENS = ("xxunk", "xxpad", "xxbos", "xxeos", "xxfld", "xxrep", "xxwrep", "xxup", "xxmaj")

# What web pages and older corpora leave in a text, in the order in which it is mended.
LEFT_OVERS = (
    ("#39;", "'"), ("amp;", "&"), ("#146;", "'"), ("nbsp;", " "), ("#36;", "$"), ("\\n", "\n"), ("quot;", "'"),
    ("<br />", "\n"), ('\\"', '"'), ("<unk>", "xxunk"), (" @.@ ", "."), (" @-@ ", "-"), ("...", " …"),
)  # fmt: skip
REPEATED_LETTER = re.compile(r"(\S)\1{2,}")
REPEATED_WORD = re.compile(r"(?:^|\s)(\w+)((?:\s+\1){2,})(\s|\W|$)")
SET_APART = re.compile(r"[/#\\]")
BLANKS = re.compile(" {2,}")
CAPITALS = re.compile(r"[A-Z]+[^a-z\s]*")
CAPITAL_FIRST = re.compile(r"[A-Z][^A-Z\s]*")
# spaCy splits what stands between white space by itself; the one blank after a word is no word, other white space is
CHUNK = re.compile(r"\S+|(?! )\s+")

TEXTS_AT_ONCE = 1024
PROCESSES_FROM = 4  # batches; fewer are split sooner than another process has started
MOST_KNOWN = 500_000  # chunks that are remembered


def fastai_words(text: str, rules: WordRules | None = None) -> list[str]:
    """The words of a text in lower case, with special tokens for what that loses; by default spaCy's own rules.

    >>> fastai_words("It's SO good!!!!")
    ['xxbos', 'xxmaj', 'it', "'s", 'xxup', 'so', 'good', 'xxrep', '4', '!']
    """
    rules = rules or spacy_rules()
    words = ["xxbos"]
    for chunk in _chunks(text):
        words += _words_of(chunk, rules)
    return words


def tokenize_words(texts: Iterable[str], rules: WordRules | None = None) -> TokenizedTexts:
    """`fastai_words` of many texts, with the distinct words numbered as they come; in several processes if they pay."""
    rules = rules or spacy_rules()
    batches = in_batches(texts, TEXTS_AT_ONCE)
    begun = list(islice(batches, PROCESSES_FROM))
    if len(begun) < PROCESSES_FROM or not sys.executable:
        return put_together(map(_Splitter(rules), begun))
    with _Processes(available_cores(), rules) as processes:
        return put_together(in_parallel(processes.split, chain(begun, batches)))


class _Splitter:
    """Splits batches of texts; a chunk that it has met is not looked at again."""

    def __init__(self, rules: WordRules) -> None:
        self.rules = rules
        self.known: dict[str, list[str]] = {}

    def __call__(self, texts: list[str]) -> Split:
        numbers: dict[str, int] = {"xxbos": 0}
        met: dict[str, list[int]] = {}
        ids, lengths = array("i"), array("q")
        for text in texts:
            begin = len(ids)
            ids.append(0)
            for chunk in _chunks(text):
                places = met.get(chunk)
                if places is None:
                    places = met[chunk] = [numbers.setdefault(word, len(numbers)) for word in self._words(chunk)]
                ids.extend(places)
            lengths.append(len(ids) - begin)
        return list(numbers), np.array(ids, np.int32), np.array(lengths, np.int64)

    def _words(self, chunk: str) -> list[str]:
        words = self.known.get(chunk)
        if words is None:
            if len(self.known) >= MOST_KNOWN:
                self.known.clear()
            words = self.known[chunk] = _words_of(chunk, self.rules)
        return words


class _Processes:
    """Processes that split texts, each asked by one thread at a time; Python lets no other thread run beside it."""

    def __init__(self, number: int, rules: WordRules) -> None:
        command = [sys.executable, "-P", "-m", __name__]  # -P: nothing from the working folder
        # in a session of their own, so that Ctrl-C reaches them through the end of their input alone
        self.all = [Popen(command, stdin=PIPE, stdout=PIPE, start_new_session=True) for _ in range(number)]  # noqa: S603
        self.idle: SimpleQueue[Popen[bytes]] = SimpleQueue()
        content = json.dumps(rules.as_json()).encode()
        for process in self.all:
            assert process.stdin is not None
            with suppress(BrokenPipeError):  # whoever asks it for something hears that it has ended
                _send(process.stdin, content)
            self.idle.put(process)

    def __enter__(self) -> "_Processes":
        return self

    def __exit__(self, *error: object) -> None:
        for process in self.all:
            process.communicate()  # the end of its input is its end

    def split(self, texts: list[str]) -> Split:
        process = self.idle.get()
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            _send(process.stdin, json.dumps(texts).encode())
            words, ids, lengths = (_receive(process.stdout) for _ in range(3))
        except (BrokenPipeError, EOFError):
            raise RuntimeError(f"A process that splits texts has ended ({process.poll()}).") from None
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
    """Take rules, then split what comes in until nothing does."""
    with suppress(EOFError):
        splitter = _Splitter(WordRules.from_json(json.loads(_receive(sys.stdin.buffer))))
        while True:
            words, ids, lengths = splitter(json.loads(_receive(sys.stdin.buffer)))
            for content in (json.dumps(words).encode(), ids.tobytes(), lengths.tobytes()):
                _send(sys.stdout.buffer, content)


def mended(text: str) -> str:
    """A text after the rules that look across words; the ones about capitals look at each word by itself."""
    for left_over, meant in LEFT_OVERS:
        text = text.replace(left_over, meant)
    text = REPEATED_LETTER.sub(lambda found: f" xxrep {len(found[0])} {found[1]} ", html.unescape(text))
    text = REPEATED_WORD.sub(lambda found: f" xxwrep {len(found[2].split()) + 1} {found[1]} {found[3]}", text)
    return BLANKS.sub(" ", SET_APART.sub(r" \g<0> ", text))


def _chunks(text: str) -> list[str]:
    return CHUNK.findall(mended(text).strip())


def _words_of(chunk: str, rules: WordRules) -> list[str]:
    sign = []
    if CAPITALS.fullmatch(chunk):
        sign = ["xxup"] if len(chunk) > 1 else []
    elif CAPITAL_FIRST.fullmatch(chunk):
        sign = ["xxmaj"]
    return [*sign, *(word.replace(" ", "▁") for word in rules.split(chunk.lower()))]


@cache
def spacy_rules() -> WordRules:
    """The rules of spaCy's English tokenizer.

    Raises:
        MissingExtraError: spaCy is not installed.
    """
    return WordRules.of_spacy(spacy_tokenizer())


def spacy_tokenizer() -> Any:
    """spaCy's English tokenizer, which leaves the special tokens as they are.

    Raises:
        MissingExtraError: spaCy is not installed.
    """
    # spaCy takes torch along where it finds it: seconds, for nothing that a tokenizer needs
    hidden = {} if "torch" in sys.modules else {"torch": None}
    sys.modules.update(hidden)  # type: ignore[arg-type]
    try:
        spacy = import_extra("spacy", "train")
    finally:
        for name in hidden:
            del sys.modules[name]
    tokenizer = spacy.blank("en").tokenizer
    for sign in SPECIAL_TOKENS:
        tokenizer.add_special_case(sign, [{"ORTH": sign}])
    return tokenizer


if __name__ == "__main__":
    _serve()
