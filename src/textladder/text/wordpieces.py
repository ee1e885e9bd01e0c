"""Word pieces: a Hugging Face encoder's own tokenizer for many texts at once, and long texts made to fit.

First step of `transformer`. Texts become bare numbers once; what an encoder can read at a time is then cut out of
them with array arithmetic. Where an encoder's tokenizer comes from is `encoders.py`'s to know; by itself it can be read
from its file.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from textladder.errors import ConfigError, PretrainedError
from textladder.text.vocabulary import EncodedTexts

LONG_TEXTS = ("head", "head-tail", "windows")
TEXTS_AT_ONCE = 1024  # enough for every core, few enough that the library's own objects stay small


@dataclass(frozen=True)
class EncoderInputs:
    """Texts as sequences that an encoder can read, its special tokens included.

    Attributes:
        sequences: at least one for each text, the ones of a text side by side.
        sequence_offsets: int64 (texts + 1,), text i is the sequences from offset i up to offset i + 1; None where
            every text is one sequence.
        cut: how many texts lost tokens.
        windowed: how many texts were read in several windows.
    """

    sequences: EncodedTexts
    sequence_offsets: np.ndarray | None
    cut: int
    windowed: int


class WordPieces:
    """A tokenizer that neither pads nor cuts by itself.

    The tokenizer file that ships with an encoder may carry both (all-MiniLM-L6-v2 pads and cuts to 128); neither
    survives here. A text that says `[PAD]` or `[SEP]` means these words, not the encoder's special tokens.

    Attributes:
        tokenizer: the library's tokenizer.
        pad_id: the number that fills up.
        before: the special tokens before a text, `[CLS]` for BERT.
        after: those after it.
    """

    def __init__(self, tokenizer: Tokenizer, pad_id: int) -> None:
        """Take over a tokenizer; a copy of it is changed, not the given one.

        Raises:
            ConfigError: it adds no special tokens to a text, so it is not one of an encoder.
        """
        self.tokenizer = Tokenizer.from_str(tokenizer.to_str())
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        self.tokenizer.encode_special_tokens = True
        self.pad_id = pad_id
        bare = self.tokenizer.encode("a", add_special_tokens=False).ids
        framed = self.tokenizer.encode("a").ids
        start = next((at for at in range(len(framed)) if framed[at : at + len(bare)] == bare), 0)
        self.before, self.after = framed[:start], framed[start + len(bare) :]
        if not bare or not (self.before or self.after):
            raise ConfigError("The tokenizer adds no special tokens to a text, so its model is not an encoder.")

    @classmethod
    def from_file(cls, path: Path, pad_id: int = 0) -> "WordPieces":
        """The tokenizer of a `tokenizer.json`.

        Raises:
            PretrainedError: it is none.
        """
        try:
            return cls(Tokenizer.from_file(str(path)), pad_id)
        except Exception as error:  # the library raises no narrower kind
            raise PretrainedError(f"{path}: this is no tokenizer of an encoder ({error}).") from None

    def pieces(self, text: str) -> list[str]:
        """The word pieces of a text, without the special tokens."""
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
        """The numbers of many texts, uncut and without the special tokens; every core takes part."""
        parts: list[np.ndarray] = [np.zeros(0, np.int32)]
        lengths: list[int] = [0]
        for batch in _batches(texts):
            for encoding in self.tokenizer.encode_batch_fast(batch, add_special_tokens=False):
                ids = np.array(encoding.ids, np.int32)
                parts.append(ids)
                lengths.append(len(ids))
        return EncodedTexts(np.concatenate(parts), np.cumsum(lengths, dtype=np.int64), self.pad_id)

    def to_sequences(
        self, texts: EncodedTexts, max_tokens: int, long_text: str = "head", *, most_windows: int | None = None
    ) -> EncoderInputs:
        """Make every text fit, its special tokens included.

        Args:
            texts: of `encode`.
            max_tokens: a sequence has at most this many tokens.
            long_text: what is kept of a longer text: `head`, its beginning; `head-tail`, a quarter from its beginning
                and the rest from its end (Sun et al. 2019, "How to fine-tune BERT for text classification", section
                5.3.1); `windows`, all of it, in as few sequences as hold it, evenly spread.
            most_windows: keep at most so many windows of a text, evenly spread.

        Raises:
            ConfigError: `max_tokens` leaves no room for text.
        """
        room = max_tokens - len(self.before) - len(self.after)
        if room < 1:
            raise ConfigError(f"Setting 'max_tokens' must be at least {max_tokens - room + 1}; received {max_tokens}.")
        lengths, starts = texts.lengths, texts.offsets[:-1]
        long = lengths > room
        sequence_offsets = None
        thinned = np.zeros(len(texts), bool)
        tail_starts, tail_lengths = starts, np.zeros(len(texts), np.int64)
        if long_text == "windows":
            needed = np.maximum(1, -(-lengths // room))
            count = needed if most_windows is None else np.minimum(needed, max(1, most_windows))
            thinned = count < needed
            sequence_offsets = np.concatenate([[0], np.cumsum(count)])
            number = np.arange(sequence_offsets[-1]) - np.repeat(
                sequence_offsets[:-1], count
            )  # of a window among its text's
            spare, gaps = np.repeat(np.maximum(0, lengths - room), count), np.repeat(np.maximum(1, count - 1), count)
            starts = np.repeat(starts, count) + spare * number // gaps
            lengths = np.repeat(lengths, count)
            tail_starts, tail_lengths = starts, np.zeros(len(starts), np.int64)
        elif long_text == "head-tail":
            tail_lengths = np.where(long, room - room // 4, 0)
            tail_starts = texts.offsets[1:] - tail_lengths
        head_lengths = np.minimum(lengths, room - tail_lengths)
        sequences = self._framed(texts.ids, starts, head_lengths, tail_starts, tail_lengths)
        cut = int(thinned.sum()) if long_text == "windows" else int(long.sum())
        return EncoderInputs(sequences, sequence_offsets, cut, int(long.sum()) if long_text == "windows" else 0)

    def _framed(
        self,
        ids: np.ndarray,
        starts: np.ndarray,
        lengths: np.ndarray,
        tail_starts: np.ndarray,
        tail_lengths: np.ndarray,
    ) -> EncodedTexts:
        """For each sequence the tokens before, a piece of `ids`, another one, and the tokens after."""
        totals = lengths + tail_lengths + (len(self.before) + len(self.after))
        offsets = np.concatenate([[0], np.cumsum(totals, dtype=np.int64)])
        result = np.empty(offsets[-1], np.int32)
        for place, token in enumerate(self.before):
            result[offsets[:-1] + place] = token
        for place, token in enumerate(reversed(self.after), start=1):
            result[offsets[1:] - place] = token
        heads = offsets[:-1] + len(self.before)
        result[_ranges(heads, lengths)] = ids[_ranges(starts, lengths)]
        result[_ranges(heads + lengths, tail_lengths)] = ids[_ranges(tail_starts, tail_lengths)]
        return EncodedTexts(result, offsets, self.pad_id)


def _ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The whole numbers from each start on, as many as its length, one range after another."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    places: np.ndarray = np.arange(total) + np.repeat(starts - (ends - lengths), lengths)
    return places


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    iterator = iter(texts)
    while batch := list(islice(iterator, TEXTS_AT_ONCE)):
        yield batch
