"""A Hugging Face encoder as a network of token numbers, and its head by itself.

Pure modules: nothing here loads anything or knows of transformers. The encoder is any module whose `forward` takes
`input_ids` and `attention_mask` and gives `logits`, built as transformers builds them: a base model that holds a list
of layers, and a head.
"""

from contextlib import suppress

import torch
from torch import Tensor, nn


class EncoderClassifier(nn.Module):
    """Token numbers to logits.

    Args:
        model: the encoder with its head.
        pad_id: the number that fills up; it is masked.
    """

    def __init__(self, model: nn.Module, pad_id: int) -> None:
        super().__init__()
        self.model, self.pad_id = model, pad_id

    def forward(self, ids: Tensor) -> Tensor:
        """Class scores, (texts, classes).

        Args:
            ids: int64 (texts, time); or (texts, sequences, time), where the logits of a text are the mean over its
                sequences and those that are padding throughout do not exist.
        """
        text_index = None
        if ids.ndim == 3:
            present = (ids != self.pad_id).any(dim=2)
            ids, text_index = ids[present], present.nonzero()[:, 0]
        logits: Tensor = self.model(input_ids=ids, attention_mask=(ids != self.pad_id).long()).logits
        return logits if text_index is None else mean_by_text(logits, text_index)

    def parameter_groups(self) -> list[list[nn.Parameter]]:
        """Embeddings, one group for each layer from the bottom up, and the head, pooler included."""
        base, layers = self._base(), self._layers()
        groups: list[list[nn.Parameter]] = [[] for _ in range(len(layers) + 2)]
        place = {id(one): number for number, layer in enumerate(layers, start=1) for one in layer.parameters()}
        pooler = getattr(base, "pooler", None)
        top = {id(one) for one in pooler.parameters()} if isinstance(pooler, nn.Module) else set()
        inside = {id(one) for one in base.parameters()} - top
        for parameter in self.parameters():
            number = place.get(id(parameter), 0) if id(parameter) in inside else len(layers) + 1
            groups[number].append(parameter)
        return groups

    def states(self, ids: Tensor) -> Tensor:
        """The encoder's last states, without the head, (sequences, time, hidden)."""
        states: Tensor = self._base()(input_ids=ids, attention_mask=(ids != self.pad_id).long())[0]
        return states

    def head_sees_first_state_only(self, ids: Tensor) -> bool | None:
        """Whether the head looks at the first state of a sequence alone; None if it cannot be run by itself."""
        training = self.training
        self.eval()
        head = EncoderHead(self)
        found = None
        with torch.inference_mode():
            logits, states, mask = self(ids), self.states(ids), ids != self.pad_id
            for first in (True, False):
                seen = (states[:, :1], mask[:, :1]) if first else (states, mask)
                with suppress(RuntimeError, TypeError, IndexError, AttributeError):
                    if torch.allclose(head(*seen), logits, atol=1e-4):
                        found = first
                        break
        self.train(training)
        return found

    def _base(self) -> nn.Module:
        base: nn.Module = getattr(self.model, str(self.model.base_model_prefix))
        return base

    def _layers(self) -> nn.ModuleList:
        """The encoder's longest list of modules; of equals the outermost."""
        lists = [module for module in self._base().modules() if isinstance(module, nn.ModuleList)]
        return max(lists, key=len, default=nn.ModuleList())


class EncoderHead(nn.Module):
    """The head of an `EncoderClassifier` by itself: the encoder's last states to logits.

    It shares the head's parameters and has no others, so that training it leaves the encoder as it is.
    """

    def __init__(self, network: EncoderClassifier) -> None:
        super().__init__()
        self.learnt = nn.ParameterList(network.parameter_groups()[-1])
        self._network = [network]  # in a list, so that the encoder does not become a part of this module

    def train(self, mode: bool = True) -> "EncoderHead":
        """Dropout of the head follows."""
        self._network[0].train(mode)
        return super().train(mode)

    def forward(self, states: Tensor, mask: Tensor, text_index: Tensor | None = None) -> Tensor:
        """Class scores, (texts, classes), from states (sequences, time, hidden) and where they are no padding."""
        model = self._network[0].model
        name = str(model.base_model_prefix)
        base = getattr(model, name)
        setattr(model, name, _Known(states, getattr(base, "pooler", None)))
        try:
            ids = torch.zeros(mask.shape, dtype=torch.long, device=mask.device)
            logits: Tensor = model(input_ids=ids, attention_mask=mask.long()).logits
        finally:
            setattr(model, name, base)
        return logits if text_index is None else mean_by_text(logits, text_index)


class _Known(nn.Module):
    """Stands in for an encoder whose last states are known."""

    def __init__(self, states: Tensor, pooler: nn.Module | None) -> None:
        super().__init__()
        self.states, self.pooler = states, pooler

    def forward(self, *inputs: object, **options: object) -> "_Output":
        pooled = () if self.pooler is None else (self.pooler(self.states),)
        return _Output((self.states, *pooled))


class _Output(tuple[Tensor, ...]):
    """What a base model gives, as far as heads ask for it."""

    hidden_states = attentions = None


def mean_by_text(logits: Tensor, text_index: Tensor) -> Tensor:
    """The mean of the rows of each owner, (text_index, classes); text_index are numbered from 0 without a gap."""
    counts = torch.bincount(text_index)
    sums = torch.zeros(len(counts), logits.shape[1], dtype=logits.dtype, device=logits.device)
    return sums.index_add(0, text_index, logits) / counts[:, None]
