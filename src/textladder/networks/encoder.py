"""A Hugging Face encoder as a network over token ids, and its head by itself.

Plain modules that load nothing and do not know transformers. The encoder is any module whose `forward` takes
`input_ids` and `attention_mask` and returns `logits`, built as transformers builds them: a base model that holds a list
of layers, and a head.
"""

import copy
from contextlib import suppress

import torch
from torch import Tensor, nn


class EncoderClassifier(nn.Module):
    """Token ids to logits.

    Args:
        model: the encoder with its head.
        pad_id: id of the padding token, which is masked.
    """

    def __init__(self, model: nn.Module, pad_id: int) -> None:
        super().__init__()
        self.model, self.pad_id = model, pad_id

    def forward(self, ids: Tensor) -> Tensor:
        """Logits (texts, classes).

        Args:
            ids: int64 (texts, time); or (texts, sequences, time), where the logits of a text are the mean over its
                sequences, of which those that are all padding do not count.
        """
        text_index = None
        if ids.ndim == 3:
            present = (ids != self.pad_id).any(dim=2)
            ids, text_index = ids[present], present.nonzero()[:, 0]
        logits: Tensor = self.model(input_ids=ids, attention_mask=(ids != self.pad_id).long()).logits
        return logits if text_index is None else mean_by_text(logits, text_index)

    def parameter_groups(self) -> list[list[nn.Parameter]]:
        """The embeddings, each layer from the bottom up, and the head with the pooler."""
        base, layers = self._base(), self._layers()
        groups: list[list[nn.Parameter]] = [[] for _ in range(len(layers) + 2)]
        layer_of = {id(one): number for number, layer in enumerate(layers, start=1) for one in layer.parameters()}
        pooler = getattr(base, "pooler", None)
        top = {id(one) for one in pooler.parameters()} if isinstance(pooler, nn.Module) else set()
        inside = {id(one) for one in base.parameters()} - top
        for parameter in self.parameters():
            number = layer_of.get(id(parameter), 0) if id(parameter) in inside else len(layers) + 1
            groups[number].append(parameter)
        return groups

    def states(self, ids: Tensor) -> Tensor:
        """The encoder's last states, which the head reads, (sequences, time, hidden)."""
        states: Tensor = self._base()(input_ids=ids, attention_mask=(ids != self.pad_id).long())[0]
        return states

    def head_sees_first_state_only(self, ids: Tensor) -> bool | None:
        """Whether the head reads only the first state of a sequence; None if it cannot be run by itself."""
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
        """The base model's longest list of modules; the outermost among equally long ones."""
        lists = [module for module in self._base().modules() if isinstance(module, nn.ModuleList)]
        return max(lists, key=len, default=nn.ModuleList())


class EncoderHead(nn.Module):
    """The head of an `EncoderClassifier` by itself: the encoder's last states to logits.

    It shares the head's parameters and has no others, so training it leaves the encoder unchanged.

    Args:
        network: the encoder with its head.
    """

    def __init__(self, network: EncoderClassifier) -> None:
        super().__init__()
        self.trained = nn.ParameterList(network.parameter_groups()[-1])
        self._network = [network]  # in a list, so that the encoder is not registered as a part of this module

    def train(self, mode: bool = True) -> "EncoderHead":
        """Also switch the network, whose dropout this is."""
        self._network[0].train(mode)
        return super().train(mode)

    def forward(self, states: Tensor, mask: Tensor, text_index: Tensor | None = None) -> Tensor:
        """Logits (texts, classes).

        Args:
            states: the encoder's last states, (sequences, time, hidden).
            mask: bool (sequences, time), False at padding.
            text_index: int64 (sequences,), the text of each sequence; None if every text is one sequence.
        """
        # Heads differ and are not modules of their own, so the model's own forward runs, on a shallow copy whose base
        # model returns the given states. The copy shares everything else; the model itself is never changed.
        model = copy.copy(self._network[0].model)
        name = str(model.base_model_prefix)
        known = _KnownStates(states, getattr(getattr(model, name), "pooler", None))
        model._modules = {**model._modules, name: known}
        ids = torch.zeros(mask.shape, dtype=torch.long, device=mask.device)
        logits: Tensor = model(input_ids=ids, attention_mask=mask.long()).logits
        return logits if text_index is None else mean_by_text(logits, text_index)


class _KnownStates(nn.Module):
    """Stands in for a base model whose last states are known."""

    def __init__(self, states: Tensor, pooler: nn.Module | None) -> None:
        super().__init__()
        self.states, self.pooler = states, pooler

    def forward(self, *inputs: object, **options: object) -> "_BaseOutput":
        pooled = () if self.pooler is None else (self.pooler(self.states),)
        return _BaseOutput((self.states, *pooled))


class _BaseOutput(tuple[Tensor, ...]):
    """The output of a base model, as far as heads read it."""

    hidden_states = attentions = None


def mean_by_text(logits: Tensor, text_index: Tensor) -> Tensor:
    """The mean over the sequences of each text, (texts, classes).

    Args:
        logits: (sequences, classes).
        text_index: int64 (sequences,), the text of each sequence; texts are numbered from 0 without a gap.
    """
    counts = torch.bincount(text_index)
    sums = torch.zeros(len(counts), logits.shape[1], dtype=logits.dtype, device=logits.device)
    return sums.index_add(0, text_index, logits) / counts[:, None]
