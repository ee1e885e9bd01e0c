"""Word pieces: a Hugging Face encoder's own tokenizer for many texts at once, and what to do with long texts.

First step of `transformer`. Texts become token ids once; the sequences that an encoder can read are then cut out of
them with array arithmetic. `encoders.py` knows where an encoder's tokenizer comes from; here it is read from its file.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from textladder.errors import ConfigError, PretrainedError, first_line
from textladder.scratch_file import concatenated
from textladder.text.tokenizer import in_batches
from textladder.text.vocabulary import EncodedTexts

# In the file of a tokenizer: ids, and sizes that the library allocates as it reads them.
MAX_NUMBER, LARGE_NUMBER = 9_999_999, re.compile(rb"[0-9]{8}")
TEXTS_AT_ONCE = 1024  # enough for every core, few enough that the library's own objects stay small
SEQUENCES_AT_ONCE = 1 << 16


def read_tokenizer(content: bytes) -> Tokenizer:
    """A tokenizer from the content of a `tokenizer.json`.

    Raises:
        ValueError: it is none, or asks for more memory than a tokenizer needs, for which the library would end the
            process.
    """
    try:
        if LARGE_NUMBER.search(content):  # perhaps in a word; the whole file is parsed only then
            numbers: list[int] = [0]
            json.loads(content, parse_int=lambda digits: numbers.append(int(digits)))
            if max(numbers) > MAX_NUMBER:
                raise ValueError(f"it contains the number {max(numbers):,}")
        return Tokenizer.from_str(content.decode())
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the library's errors have no common base, and its panics are no Exception
        raise ValueError(first_line(error)) from None


@dataclass(frozen=True)
class EncoderInputs:
    """Texts as sequences that an encoder can read, special tokens included.

    Attributes:
        sequences: at least one for each text, those of a text next to each other.
        sequence_offsets: int64 (texts + 1,), text i is the sequences from offset i up to offset i + 1; None if every
            text is one sequence.
        truncated: how many texts were truncated.
        windowed: how many texts were split into several windows.
    """

    sequences: EncodedTexts
    sequence_offsets: np.ndarray | None
    truncated: int
    windowed: int


class WordPieces:
    """A tokenizer that neither pads nor truncates by itself.

    The tokenizer file that ships with an encoder may do both (all-MiniLM-L6-v2's pads and truncates to 128 tokens);
    both are turned off. `[PAD]` or `[SEP]` in a text is an ordinary word, not the encoder's special token.

    Attributes:
        tokenizer: the library's tokenizer.
        pad_id: the id that fills up the shorter sequences of a batch.
        before: the ids of the special tokens before a text, `[CLS]` for BERT.
        after: the ids of those after it.
    """

    def __init__(self, tokenizer: Tokenizer, pad_id: int) -> None:
        """Copy a tokenizer; the given one is not changed.

        Raises:
            ConfigError: it adds no special tokens to a text, so it does not belong to an encoder.
        """
        self.tokenizer = Tokenizer.from_str(tokenizer.to_str())
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        self.tokenizer.encode_special_tokens = True
        self.pad_id = pad_id
        bare = self.tokenizer.encode("a", add_special_tokens=False).ids
        framed = self.tokenizer.encode("a").ids
        start = next((i for i in range(len(framed)) if framed[i : i + len(bare)] == bare), 0)
        self.before, self.after = framed[:start], framed[start + len(bare) :]
        if not bare or not (self.before or self.after):
            raise ConfigError("The tokenizer adds no special tokens to a text, so its model is not an encoder.")

    @classmethod
    def from_file(cls, path: Path, pad_id: int = 0) -> "WordPieces":
        """Read a `tokenizer.json`.

        Raises:
            PretrainedError: it is not an encoder's tokenizer.
        """
        try:
            return cls(Tokenizer.from_file(str(path)), pad_id)
        except Exception as error:  # the library raises no narrower kind
            raise PretrainedError(f"{path}: this is not the tokenizer of an encoder ({error}).") from None

    def pieces(self, text: str) -> list[str]:
        """The word pieces of a text, without special tokens."""
        tokens: list[str] = self.tokenizer.encode(text, add_special_tokens=False).tokens
        return tokens

    def decode(self, ids: Sequence[int]) -> str:
        """The word pieces of some ids, special tokens included, joined with a space."""
        return " ".join(self.tokenizer.id_to_token(int(number)) or "" for number in ids)

    @property
    def vocabulary(self) -> list[str]:
        """Every word piece in the order of the ids."""
        ids: dict[str, int] = self.tokenizer.get_vocab()
        return sorted(ids, key=ids.__getitem__)

    def encode(self, texts: Iterable[str]) -> EncodedTexts:
        """The token ids of many texts, neither truncated nor with special tokens; computed on every core."""
        lengths: list[int] = [0]

        def ids() -> Iterator[np.ndarray]:
            for batch in in_batches(texts, TEXTS_AT_ONCE):
                encoded = [one.ids for one in self.tokenizer.encode_batch_fast(batch, add_special_tokens=False)]
                lengths.extend(map(len, encoded))
                yield np.fromiter(chain.from_iterable(encoded), np.int32)

        every_id = concatenated(ids(), np.int32)
        return EncodedTexts(every_id, np.cumsum(lengths, dtype=np.int64), self.pad_id)

    def unknown_share(self, texts: Sequence[str]) -> float:
        """Share of the characters, blanks aside, that the tokenizer has no word piece for and drops or replaces."""
        model = json.loads(self.tokenizer.to_str())["model"]
        unknown = model.get("unk_id")  # of a unigram model; the others have the token itself, if any
        if unknown is None and model.get("unk_token") is not None:
            unknown = self.tokenizer.token_to_id(model["unk_token"])
        if unknown is None:
            return 0.0
        lost = total = 0
        for text, encoding in zip(
            texts, self.tokenizer.encode_batch(list(texts), add_special_tokens=False), strict=True
        ):
            total += sum(not character.isspace() for character in text)
            for number, (start, stop) in zip(encoding.ids, encoding.offsets, strict=True):
                if number == unknown:
                    lost += sum(not character.isspace() for character in text[start:stop])
        return lost / max(1, total)

    def to_sequences(
        self, texts: EncodedTexts, max_tokens: int, long_text: str = "head", *, most_windows: int | None = None
    ) -> EncoderInputs:
        """Make sequences of at most `max_tokens` tokens, special tokens included.

        Args:
            texts: from `encode`.
            max_tokens: the maximum length of a sequence.
            long_text: what to keep of a longer text: `head`, its beginning; `head-tail`, a quarter from its beginning
                and the rest from its end (Sun et al. 2019, "How to fine-tune BERT for text classification", section
                5.3.1); `windows`, all of it, in as few evenly spaced sequences as possible.
            most_windows: keep at most this many windows per text, evenly spaced.

        Raises:
            ConfigError: `max_tokens` leaves no room for text.
        """
        room = max_tokens - len(self.before) - len(self.after)
        if room < 1:
            raise ConfigError(f"Setting 'max_tokens' must be at least {max_tokens - room + 1}; received {max_tokens}.")
        if long_text == "windows":
            return self._windows(texts, room, most_windows)
        too_long = texts.lengths > room
        tails = np.where(too_long, room - room // 4, 0) if long_text == "head-tail" else np.zeros(len(texts), np.int64)
        heads = np.minimum(texts.lengths, room - tails)
        sequences = self._framed(texts.ids, (texts.offsets[:-1], heads), (texts.offsets[1:] - tails, tails))
        return EncoderInputs(sequences, None, int(too_long.sum()), 0)

    def _windows(self, texts: EncodedTexts, room: int, most_windows: int | None) -> EncoderInputs:
        lengths = texts.lengths
        needed = np.maximum(1, -(-lengths // room))
        counts = needed if most_windows is None else np.minimum(needed, max(1, most_windows))
        offsets = np.concatenate([[0], np.cumsum(counts)])
        number = np.arange(offsets[-1]) - np.repeat(offsets[:-1], counts)  # of each window within its text
        excess = np.repeat(np.maximum(0, lengths - room), counts)
        gaps = np.repeat(np.maximum(1, counts - 1), counts)
        starts = np.repeat(texts.offsets[:-1], counts) + excess * number // gaps
        sequences = self._framed(texts.ids, (starts, np.minimum(np.repeat(lengths, counts), room)))
        return EncoderInputs(sequences, offsets, int((counts < needed).sum()), int((lengths > room).sum()))

    def _framed(self, ids: np.ndarray, *pieces: tuple[np.ndarray, np.ndarray]) -> EncodedTexts:
        """For each sequence the special tokens before, pieces of `ids` by their starts and lengths, and those after."""
        totals = np.sum([lengths for _, lengths in pieces], axis=0) + (len(self.before) + len(self.after))
        offsets = np.concatenate([[0], np.cumsum(totals, dtype=np.int64)])

        def framed() -> Iterator[np.ndarray]:
            for start in range(0, len(totals), SEQUENCES_AT_ONCE):
                some = slice(start, start + SEQUENCES_AT_ONCE)
                ends = np.cumsum(totals[some])
                result = np.empty(ends[-1], np.int32)
                starts = ends - totals[some]
                for i, token in enumerate(self.before):
                    result[starts + i] = token
                for i, token in enumerate(reversed(self.after), start=1):
                    result[ends - i] = token
                positions = starts + len(self.before)
                for begins, lengths in pieces:
                    result[_ranges(positions, lengths[some])] = ids[_ranges(begins[some], lengths[some])]
                    positions = positions + lengths[some]
                yield result

        return EncodedTexts(concatenated(framed(), np.int32), offsets, self.pad_id)


def _ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Consecutive integers from each start on, as many as its length, one range after another."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    indices: np.ndarray = np.arange(total) + np.repeat(starts - (ends - lengths), lengths)
    return indices
