"""The base of all encoders that run on torch: prepared pictures in, embeddings out."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from vecsearch.encoders.base import Identity, Weights, reads_no_text
from vecsearch.imaging.preprocessing import Preprocessing

if TYPE_CHECKING:
    from numpy.typing import NDArray


# Whether CUDA rounds to TF32 is a setting of the whole process.
_ONE_PRECISION = threading.Lock()


@contextmanager
def full_precision() -> Iterator[None]:
    """Compute in float32 on CUDA, as the encoder's identity says, without TF32 or float16.

    By default, cuDNN rounds the inputs of convolutions to TF32, and the vectors would differ from
    those of a CPU.
    """
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    with _ONE_PRECISION, torch.autocast("cuda", enabled=False):
        before = matmul.allow_tf32, cudnn.allow_tf32
        matmul.allow_tf32 = cudnn.allow_tf32 = False
        try:
            yield
        finally:
            matmul.allow_tf32, cudnn.allow_tf32 = before


class Network(nn.Module):
    """Normalisation, a model or a layer of it, and the average of that layer's output.

    Args:
        model: reads normalised pictures, shape (n, 3, height, width).
        preprocessing: the model's preprocessing.
        tap: the submodule whose output is the embedding; None uses the model's output.

    Attributes:
        averaged: the axes of the output to average over: height and width, or tokens.

    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, model: nn.Module, preprocessing: Preprocessing, tap: str | None) -> None:
        super().__init__()
        self.model = model
        self.tap = tap
        self.averaged: tuple[int, ...] = ()
        for name, values in (("mean", preprocessing.mean), ("std", preprocessing.std)):
            self.register_buffer(name, torch.tensor(values).reshape(1, 3, 1, 1))

    def outputs(self, pixels: torch.Tensor) -> list[Any]:
        """Return the layer's outputs for prepared pictures, one for each time the layer is used."""
        # Channels stay last in memory, which is fastest for convolutions.
        inputs = pixels.permute(0, 3, 1, 2).float().div(255).sub(self.mean).div(self.std)
        if self.tap is None:
            return [self.model(inputs).flatten(1)]
        outputs: list[Any] = []

        def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
            # A copy, because the next activation may work in place.
            outputs.append(output.clone() if isinstance(output, torch.Tensor) else output)

        with self.model.get_submodule(self.tap).register_forward_hook(keep):
            self.model(inputs)
        return outputs

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return embeddings, shape (n, dimensions), of bytes (n, height, width, 3)."""
        output: torch.Tensor
        [output] = self.outputs(pixels)
        return output.mean(self.averaged) if self.averaged else output


@contextmanager
def computing(device: torch.device, one_at_a_time: threading.Lock) -> Iterator[None]:
    """Run a network on a device, alone and in full precision."""
    exact = full_precision() if device.type == "cuda" else nullcontext()
    with one_at_a_time, torch.inference_mode(), exact:
        yield


class TorchTexts:
    """A text tower on a torch device: tokens in, embeddings out; safe to call in threads.

    Attributes:
        tower: from tokens (n, tokens) to embeddings (n, dimensions).
        device: the device that it is on.

    """

    def __init__(self, tower: nn.Module, device: torch.device) -> None:
        self.tower = tower
        self.device = device
        self._one_at_a_time = threading.Lock()

    def __call__(self, tokens: "NDArray[np.int64]") -> "NDArray[np.float32]":
        """Return embeddings, shape (n, dimensions), of tokens, shape (n, tokens)."""
        with computing(self.device, self._one_at_a_time):
            output = self.tower(torch.from_numpy(tokens).to(self.device))
        embeddings: NDArray[np.float32] = output.float().cpu().numpy()
        return embeddings


class TorchEncoder:
    """A network on a torch device. See `vecsearch.encoders.base.Encoder`.

    Attributes:
        network: the network, whose output `embed` returns.
        device: the device that it runs on.

    """

    concurrency = 1

    def __init__(
        self, identity: Identity, weights: Weights, network: Network, device: torch.device
    ) -> None:
        self.identity = identity
        self.weights = weights
        self.network = network.eval().to(memory_format=torch.channels_last).to(device)
        self.device = device
        self.preprocessing = Preprocessing.of(identity.preprocessing)
        # Concurrent passes would share the processor, and a hook would receive both outputs.
        self._one_at_a_time = threading.Lock()
        self.dimensions = 0
        self.layer_shape: tuple[int, ...] = ()

    def embed(self, batch: "NDArray[np.uint8]") -> "NDArray[np.float32]":
        """Return embeddings, shape (n, dimensions)."""
        with computing(self.device, self._one_at_a_time):
            output = self.network(self._on_device(batch))
        features: NDArray[np.float32] = output.float().cpu().numpy()
        return features

    def texts(self) -> TorchTexts:
        """Return the text tower.

        Raises:
            EncoderError: there is none.

        """
        raise reads_no_text(self.identity)

    def outputs_for_two(self) -> list[Any]:
        """Return the layer's outputs for two pictures, to determine its shape."""
        shape = (2, *self.preprocessing.input_size, 3)
        with computing(self.device, self._one_at_a_time):
            return self.network.outputs(self._on_device(np.zeros(shape, np.uint8)))

    def _on_device(self, batch: "NDArray[np.uint8]") -> torch.Tensor:
        pixels = torch.from_numpy(batch)
        if self.device.type == "cuda":
            return pixels.pin_memory().to(self.device, non_blocking=True)
        return pixels.to(self.device)
