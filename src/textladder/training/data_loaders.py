"""fastai's DataLoaders over encoded texts, so that a Learner does everything that fastai users expect of one.

    TextBatches (which texts make a batch) -> TextDataLoader -> TextDataLoaders -> Learner

Batches are grouped by length as `batching.py` decides; whatever asks for predictions (`get_preds`, `Interpretation`)
gets them in the order of the rows, because a loader knows the order that it iterates in.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MethodType
from typing import Any, ClassVar

import fastai.text.learner  # noqa: F401, registers how texts are shown
import numpy as np
import pandas as pd
import torch
from fastai.data.core import DataLoaders, TfmdDL
from fastai.data.transforms import Category, CategoryMap
from fastai.text.data import TensorText
from fastai.torch_core import TensorCategory, TitledStr, display_df, to_device
from fastcore.foundation import L
from torch import Tensor

from textladder.batching import TextBatches
from textladder.errors import DataError
from textladder.text.vocabulary import EncodedTexts


@dataclass(frozen=True)
class TextCodec:
    """How a level turns texts into ids and ids into something readable.

    Attributes:
        encode: raw texts to ids and, where a text may be several sequences, their offsets as in `TextBatches`.
        decode: ids, without padding, to a string of tokens.
        tokens: every token in the order of the ids.
        labels: the classes in their order.
    """

    encode: Callable[[Sequence[str]], tuple[EncodedTexts, np.ndarray | None]]
    decode: Callable[[Sequence[int]], str]
    tokens: Callable[[], Sequence[str]]
    labels: tuple[str, ...]


class TextDataset(torch.utils.data.Dataset[tuple[Tensor, ...]]):
    """Labelled texts as token ids: `dataset[0]` is a pair of ids and label.

    Args:
        batches: the texts and how they are batched.
        codec: the level's codec.
        labelled: False for texts without labels; an item is then its ids alone.
    """

    def __init__(self, batches: TextBatches, codec: TextCodec, *, labelled: bool = True) -> None:
        self.batches, self.codec, self.labelled = batches, codec, labelled

    def __len__(self) -> int:
        return self.batches.rows

    def __getitem__(self, index: Any) -> Any:
        """The ids, int64 (time,) or (sequences, time), and the label of a text; of a list of indices, a list."""
        if isinstance(index, (list, Tensor, np.ndarray, slice)):
            return [self[int(one)] for one in np.arange(len(self))[index]]
        if not -len(self) <= index < len(self):
            raise IndexError(f"There are {len(self):,} texts; received index {index}.")
        ids, label = self.batches.batch(np.array([int(index) % len(self)]))
        item = (TensorText(ids[0]), TensorCategory(label[0]))
        return item if self.labelled else item[:1]

    def decode(self, ids: Any) -> str:
        """The tokens of some ids, without padding."""
        kept = [int(one) for one in np.asarray(ids).ravel() if int(one) != self.batches.texts.pad_id]
        return self.codec.decode(kept)

    @property
    def vocab(self) -> list[Any]:
        """The tokens and the labels, as fastai has them."""
        return [list(self.codec.tokens()), CategoryMap(list(self.codec.labels), sort=False)]

    @property
    def items(self) -> "TextDataset":
        """The dataset itself, which fastai indexes with `items.iloc[...]` and gives back to `test_dl`."""
        return self

    iloc = items

    def like(self, items: Any) -> "TextDataset":
        """A dataset of other texts, encoded and batched in the same way.

        Args:
            items: raw texts, or items of such a dataset.

        Raises:
            DataError: they are neither.
        """
        items, pad_id = list(items), self.batches.texts.pad_id
        if all(isinstance(item, str) for item in items):
            texts, offsets = self.codec.encode([str(item) for item in items])
            labels = np.zeros(len(items), np.int64)
            return TextDataset(self.batches.like(texts, labels, offsets), self.codec, labelled=False)
        if not all(isinstance(item, tuple) and isinstance(item[0], Tensor) for item in items):
            kinds = ", ".join(sorted({type(item).__name__ for item in items}))
            raise DataError(f"Texts must be strings, or items of a dataset; received {kinds}.")
        rows = [np.atleast_2d(item[0].numpy()) for item in items]
        sequences = [row[row != pad_id].astype(np.int32) for item in rows for row in item]
        texts = EncodedTexts(np.concatenate(sequences), np.cumsum([0, *map(len, sequences)]), pad_id)
        offsets = None if self.batches.sequence_offsets is None else np.cumsum([0, *map(len, rows)])
        labelled = all(len(item) > 1 for item in items)
        labels = np.array([int(item[1]) if labelled else 0 for item in items], np.int64)
        return TextDataset(self.batches.like(texts, labels, offsets), self.codec, labelled=labelled)


class TextDataLoader(TfmdDL):  # type: ignore[misc]
    """A fastai DataLoader whose batches come from `TextBatches`.

    Args:
        dataset: the texts.
        shuffle: a new order in every pass, as the dataset's batches have it.
        by_length: group texts by length; else they come in the order of the rows.
        options: of fastai's DataLoader; `bs` overrides the size of the batches.
    """

    _n_inp: ClassVar[int] = 1
    _types: ClassVar[Any] = {tuple: [TensorText, TensorCategory]}

    def __init__(self, dataset: TextDataset, *, shuffle: bool = False, by_length: bool = True, **options: Any) -> None:
        batches, size = dataset.batches, options.pop("bs", None) or options.pop("batch_size", None)
        if shuffle != batches.shuffle or (size is not None and size != batches.batch_size):
            parts = batches.texts, batches.label_ids, batches.sequence_offsets
            batches = batches.like(*parts, batch_size=size, shuffle=shuffle)
        self.batches, self.by_length = batches, by_length
        # fastai counts texts here; without a given size, batches have as many as the token limit allows
        options |= {"num_workers": 0, "drop_last": False}
        super().__init__(dataset, bs=self.batches.batch_size, shuffle=shuffle, **options)

    def new(self, dataset: Any = None, cls: Any = None, **options: Any) -> "TextDataLoader":
        """Another loader with other options, or over other texts, which may be raw strings."""
        if dataset is not None and not isinstance(dataset, TextDataset):
            dataset = self.dataset.like(dataset)
        loader: TextDataLoader = super().new(dataset, cls, **{"by_length": self.by_length, **options})
        return loader

    @property
    def rows(self) -> int:
        """Number of texts in a pass."""
        return self.batches.rows

    def shortest_first(self) -> None:
        """As in `TextBatches`."""
        self.batches.shortest_first()

    def place(self, done: int) -> dict[str, Any]:
        """As in `TextBatches`."""
        return self.batches.place(done)

    def restore(self, place: Mapping[str, Any]) -> None:
        """As in `TextBatches`."""
        self.batches.restore(place)

    def __len__(self) -> int:
        if self._has_fixed_order():
            return len(list(self.batches.split(np.asarray(self.get_idxs(), np.int64))))
        return len(self.batches)

    def get_idxs(self) -> list[int]:
        """The order of the next pass over the rows."""
        if not self.by_length:
            return list(range(self.rows))
        passes = self.batches.next_pass()
        return [int(index) for indices in passes for index in indices]

    def __iter__(self) -> Iterator[Any]:
        self.before_iter()
        fixed = self._has_fixed_order()
        order = self.batches.split(np.asarray(self.get_idxs(), np.int64)) if fixed else self.batches.next_pass()
        for indices in order:
            batch: tuple[Tensor, ...] = self.batches.batch(indices)
            if not self.dataset.labelled:
                batch = batch[:1]
            yield self.after_batch(batch if self.device is None else to_device(batch, self.device))
        self.after_iter()

    def _has_fixed_order(self) -> bool:
        """fastai replaces `get_idxs` to iterate in a known order; the order of the rows is known too."""
        return not self.by_length or not isinstance(self.get_idxs, MethodType)

    def decode_batch(self, b: Any, max_n: int = 9, full: bool = True) -> Any:
        """Batch to (tokens, label) pairs of strings."""
        return self._pre_show_batch(b, max_n)[2]

    def show_results(
        self, b: Any, out: Any, max_n: int = 9, ctxs: Any = None, show: bool = True, trunc_at: int = 150, **options: Any
    ) -> Any:
        """Show texts with their labels and predictions.

        fastai 2.8's own function for texts fails, because it indexes one that can no longer be indexed.

        Args:
            b: a batch.
            out: the predicted classes, int64 (batch,).
            max_n: number of texts.
            ctxs: fastai's, ignored.
            show: display them; else return them.
            trunc_at: words shown of a text.
            options: fastai's, ignored.
        """
        predicted = out[0] if isinstance(out, (list, tuple)) else out
        texts, actual, found = (self._pre_show_batch(each, max_n)[2] for each in (b[:1], b, (b[0], predicted)))
        columns = {
            "text": [text.truncate(trunc_at) for (text,) in texts],
            "category": [sample[1] for sample in actual],
            "predicted": [sample[1] for sample in found],
        }
        frame = pd.DataFrame(columns)
        return display_df(frame) if show else frame

    def _pre_show_batch(self, b: Any, max_n: int = 9) -> tuple[Any, Any, Any]:
        """What fastai shows: ids, labels, and for each of at most `max_n` texts its tokens and label."""
        ids, *labels = b
        samples = []
        for row in range(min(max_n, len(ids))):
            named = [Category(self.dataset.codec.labels[int(label[row])]) for label in labels if len(label)]
            samples.append((TitledStr(self.dataset.decode(ids[row])), *named))
        first = TensorText(ids[0] if isinstance(ids, L) else ids)
        return first, TensorCategory(labels[0]) if labels else None, L(samples)


class TextDataLoaders(DataLoaders):  # type: ignore[misc]
    """Training and validation loaders."""

    def test_dl(
        self, test_items: Any, rm_type_tfms: Any = None, with_labels: bool = False, **options: Any
    ) -> TextDataLoader:
        """A loader of raw texts: a list or a pandas Series of strings.

        Args:
            test_items: the texts; or items of a dataset, which fastai's `Interpretation` gives.
            rm_type_tfms: fastai's, ignored.
            with_labels: keep the items' labels, and their order, which `Interpretation` relies on.
            options: fastai's; only `bs` is used.
        """
        if isinstance(test_items, str):
            raise DataError("Texts must be a list of strings; received one string.")
        dataset = self.valid_ds.like(test_items)
        size = {"bs": options["bs"]} if options.get("bs") else {}
        loader: TextDataLoader = self.valid.new(dataset, shuffle=False, by_length=not with_labels, **size)
        return loader


def text_data_loaders(
    train: TextBatches, valid: TextBatches | None, codec: TextCodec, device: torch.device
) -> TextDataLoaders:
    """The loaders of a Learner; without validation texts the second one is empty.

    Args:
        train: batches of the training texts.
        valid: batches of the validation texts; None if there are none.
        codec: turns texts into ids and back.
        device: where batches are moved to.
    """
    if valid is None:
        empty = EncodedTexts(np.zeros(0, np.int32), np.zeros(1, np.int64), train.texts.pad_id)
        offsets = None if train.sequence_offsets is None else np.zeros(1, np.int64)
        valid = train.like(empty, np.zeros(0, np.int64), offsets)
    loaders = (
        TextDataLoader(TextDataset(train, codec), shuffle=train.shuffle),
        TextDataLoader(TextDataset(valid, codec)),
    )
    return TextDataLoaders(*loaders, device=device)
