"""The rival: masked networks, their training and their pruners in plain PyTorch.

Written as one would for a single network; ``torch.func`` and the loops over many are
in the scripts. Only workers that need PyTorch import this file.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from problem import Layer
from torch import nn
from torch.nn import functional as F

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# As JAX does by default on a GPU that has it.
torch.backends.cuda.matmul.allow_tf32 = True


class MaskedLinear(nn.Module):
    """A linear layer whose mask is applied in the forward pass."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        kernel, bias, mask = layer
        self.weight = nn.Parameter(_tensor(kernel.T))
        self.bias = nn.Parameter(_tensor(bias))
        self.register_buffer("mask", _tensor(mask.T.astype(np.float32)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns ``[batch, out]``."""
        return F.linear(x, self.weight * self.mask, self.bias)


class Net(nn.Module):
    """A ReLU network of masked layers."""

    def __init__(self, network: Sequence[Layer]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(map(MaskedLinear, network))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns logits ``[batch, classes]``."""
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)

    def weights(self) -> list[torch.Tensor]:
        """Returns the prunable weights."""
        return [layer.weight for layer in self.layers]

    def masks(self) -> list[torch.Tensor]:
        """Returns the masks."""
        return [layer.mask for layer in self.layers]

    def set_masks(self, masks: Sequence[torch.Tensor]) -> None:
        """Replaces the masks."""
        for layer, mask in zip(self.layers, masks, strict=True):
            layer.mask.copy_(mask)

    def flat(self) -> np.ndarray:
        """Returns the masked weights as one vector, as ``problem.flat`` does."""
        return flat([(la.weight, la.bias, la.mask) for la in self.layers])


def flat(layers: Sequence[tuple[Any, Any, Any]]) -> np.ndarray:
    """Returns weights, biases and masks of a network as one vector."""
    parts = []
    for weight, bias, mask in layers:
        kernel = (weight * mask).detach().T.reshape(-1)
        parts += [kernel.cpu().numpy(), bias.detach().cpu().numpy()]
    return np.concatenate(parts)


def place(x: np.ndarray, y: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns a data set on the device."""
    return _tensor(x), torch.from_numpy(y).long().to(DEVICE)


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.tensor(np.ascontiguousarray(array), device=DEVICE)


def random_order(n: int) -> Callable[[int], torch.Tensor]:
    """Returns ``order(epoch)``: a fresh permutation every time."""
    return lambda epoch: torch.randperm(n, device=DEVICE)


def train_steps(
    net: Net,
    x: torch.Tensor,
    y: torch.Tensor,
    *,
    steps: int,
    batch: int,
    order: Callable[[int], torch.Tensor],
    **options: Any,
) -> None:
    """Trains a network for a number of steps; ``options`` are those of Adam."""
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, **options)
    an_epoch = math.ceil(len(y) / batch)
    for step in range(steps):
        epoch, i = divmod(step, an_epoch)
        if i == 0:
            indices = order(epoch)
        index = indices[i * batch : (i + 1) * batch]
        _step(net, optimizer, x[index], y[index])


def train(
    net: Net,
    x: torch.Tensor,
    y: torch.Tensor,
    *,
    max_epochs: int,
    batch: int = 64,
    patience: int = 3,
    min_epochs: int = 10,
) -> tuple[int, float]:
    """Trains a network to convergence; returns its epochs and accuracy.

    It stops at accuracy 1 or when that has not changed for ``patience`` epochs, after
    ``min_epochs``; loss and accuracy are taken over the whole set after every epoch.
    """
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    n = len(y)
    batch = min(batch, n)
    previous, still = math.nan, 0
    for epoch in range(1, max_epochs + 1):
        indices = torch.randperm(n, device=DEVICE)
        for start in range(0, n, batch):
            index = indices[start : start + batch]
            _step(net, optimizer, x[index], y[index])
        with torch.no_grad():
            logits = net(x)
            loss = F.cross_entropy(logits, y).item()
            accuracy = (logits.argmax(1) == y).float().mean().item()
        still = still + 1 if accuracy == previous else 0
        previous = accuracy
        if not math.isfinite(loss):
            break
        if epoch >= min_epochs and (accuracy >= 1 or still >= patience):
            break
    return epoch, accuracy


def _step(
    net: Net, optimizer: torch.optim.Optimizer, x: torch.Tensor, y: torch.Tensor
) -> None:
    loss = F.cross_entropy(net(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


# Pruners: masks from a network, a list of float tensors


def top_k(scores: Sequence[torch.Tensor], keep: int) -> list[torch.Tensor]:
    """Returns the masks of the ``keep`` highest scores over all layers."""
    whole = torch.cat([score.reshape(-1) for score in scores])
    chosen = torch.zeros_like(whole)
    chosen[torch.topk(whole, keep).indices] = 1
    parts = chosen.split([score.numel() for score in scores])
    return [part.view_as(score) for part, score in zip(parts, scores, strict=True)]


def magnitude(net: Net, keep: int) -> list[torch.Tensor]:
    """Returns the masks of the largest weights left."""
    pairs = zip(net.weights(), net.masks(), strict=True)
    return top_k([(weight.detach() * mask).abs() for weight, mask in pairs], keep)


def random(net: Net, keep: int) -> list[torch.Tensor]:
    """Returns random masks."""
    return top_k([torch.rand_like(weight) for weight in net.weights()], keep)


def snip(net: Net, x: torch.Tensor, y: torch.Tensor, keep: int) -> list[torch.Tensor]:
    """Returns the masks of the highest ``|g w|``."""
    weights = net.weights()
    gradients = torch.autograd.grad(F.cross_entropy(net(x), y), weights)
    pairs = zip(gradients, weights, strict=True)
    return top_k([(g * w.detach()).abs() for g, w in pairs], keep)


def grasp(
    net: Net,
    x: torch.Tensor,
    y: torch.Tensor,
    keep: int,
    *,
    temperature: float = 200.0,
) -> list[torch.Tensor]:
    """Returns the masks of the highest ``w (H g)``, by double backward."""
    weights = net.weights()
    loss = F.cross_entropy(net(x) / temperature, y)
    gradients = torch.autograd.grad(loss, weights, create_graph=True)
    product = sum((g * g.detach()).sum() for g in gradients)
    flows = torch.autograd.grad(product, weights)
    pairs = zip(flows, weights, strict=True)
    return top_k([hg * w.detach() for hg, w in pairs], keep)


def synflow(net: Net, keeps: Sequence[int]) -> list[torch.Tensor]:
    """Returns the masks after a round of synaptic flow for every number to keep."""
    weights = [weight.detach().abs() for weight in net.weights()]
    biases = [layer.bias.detach().abs() for layer in net.layers]
    masks = [torch.ones_like(weight) for weight in weights]
    ones = torch.ones(1, weights[0].shape[1], device=DEVICE)
    for keep in keeps:
        masked = [
            (weight * mask).requires_grad_()
            for weight, mask in zip(weights, masks, strict=True)
        ]
        out = ones
        for i, (weight, bias) in enumerate(zip(masked, biases, strict=True)):
            out = F.linear(out, weight, bias)
            if i < len(masked) - 1:
                out = F.relu(out)
        gradients = torch.autograd.grad(out.sum(), masked)
        pairs = zip(gradients, masked, masks, strict=True)
        # What is gone ranks below a score of 0, which overflow or a dead path gives.
        scores = [
            (g * w.detach()).abs().masked_fill(mask == 0, -1.0) for g, w, mask in pairs
        ]
        masks = top_k(scores, int(keep))
    return masks
