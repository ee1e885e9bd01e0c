"""Streams of words: every word once, what follows it, parts and passes."""

import itertools

import numpy as np
import pytest

from textladder.text.vocabulary import EncodedTexts
from textladder.training.word_streams import WordStream


def texts(number: int = 30, length: int = 11) -> EncodedTexts:
    return EncodedTexts(np.arange(number * length, dtype=np.int32), np.arange(0, number * length + 1, length))


def test_rows_read_on_and_the_next_word_follows() -> None:
    stream = WordStream(texts(), batch_size=4, time=7)
    batches = list(stream)
    words = np.concatenate([batch[0].numpy() for batch in batches], axis=1)
    following = np.concatenate([batch[1].numpy() for batch in batches], axis=1)
    assert words.shape == (4, (330 - 1) // 4)
    assert np.array_equal(words[:, 1:], following[:, :-1])
    assert np.array_equal(words.flatten(), np.arange(words.size))
    assert all(batch[0].shape[1] <= 7 for batch in batches)


@pytest.mark.parametrize("parts", [1, 3, 5])
def test_parts_make_up_a_pass(parts: int) -> None:
    whole = WordStream(texts(), batch_size=4, time=7, shuffle=True, seed=3)
    stream = WordStream(texts(), batch_size=4, time=7, parts=parts, shuffle=True, seed=3)
    for _ in range(2):
        expected = [batch[0] for batch in whole]
        lengths, found = [], []
        for _ in range(parts):
            lengths.append(len(stream))
            found.append([batch[0] for batch in stream])
        assert [len(part) for part in found] == lengths
        assert all(one.equal(other) for one, other in zip(itertools.chain(*found), expected, strict=True))


def test_passes_differ_and_a_part_is_always_the_same() -> None:
    stream = WordStream(texts(), batch_size=4, time=7, parts=2, shuffle=True, seed=3)
    passes = [[batch[0] for batch in stream] for _ in range(4)]
    assert not passes[0][0].equal(passes[2][0])
    again = WordStream(texts(), batch_size=4, time=7, parts=2, shuffle=True, seed=3)
    again.next_part = 3
    assert next(iter(again))[0].equal(passes[3][0])
    other = WordStream(texts(), batch_size=4, time=7, parts=2, shuffle=True, seed=4)
    assert not next(iter(other))[0].equal(passes[0][0])
    assert sorted(np.concatenate([batch.numpy().flatten() for batch in passes[0] + passes[1]])) != []


def test_documents_stay_whole() -> None:
    stream = WordStream(texts(), batch_size=1, time=1000, shuffle=True, seed=0)
    words = next(iter(stream))[0].numpy()[0]
    whole = words[: len(words) // 11 * 11].reshape(-1, 11)
    assert (np.diff(whole, axis=1) == 1).all()
    assert (whole[:, 0] % 11 == 0).all()


def test_few_words_take_fewer_rows() -> None:
    stream = WordStream(texts(2, 5), batch_size=64, time=70)
    assert stream.batch_size == 1
    assert len(stream) == 1
    assert next(iter(stream))[0].shape == (1, 9)
