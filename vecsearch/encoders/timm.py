"""Any timm model as an encoder: one of its layers, its own preprocessing."""

import logging
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import timm
import timm.models
import torch
from timm.data.config import resolve_model_data_config
from timm.data.transforms_factory import create_transform

from vecsearch.encoders import POOLED, Identity, Weights
from vecsearch.encoders.timm_names import FC1, FC1_MODULE, parse
from vecsearch.encoders.torch_support import choose_device, tensors_sha256
from vecsearch.errors import EncoderError, WeightsMismatch, WeightsUnavailable

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image as Picture

HUB_TIMEOUT_S = 10.0
# A second head of Inception v3, for training alone: its published files hold it, timm leaves it.
AUXILIARY = "AuxLogits"


class TimmEncoder:
    """A layer of a timm model, averaged to a vector. See `vecsearch.encoders.Encoder`.

    Maps are averaged over height and width, token sequences over tokens.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        name: str,
        layer: str,
        weights: Weights,
        device: torch.device,
    ) -> None:
        # Preprocessing belongs to the weights: create_transform's own defaults differ.
        config = resolve_model_data_config(model)  # type: ignore[no-untyped-call]  # timm leaves it untyped
        self.identity = Identity(
            model=name,
            layer=layer,
            weights_sha256=tensors_sha256(model.state_dict()),
            preprocessing={
                key: list(value) if isinstance(value, tuple) else value
                for key, value in sorted(config.items())
            },
        )
        self.weights = weights
        self._device = device
        self._transform = create_transform(**config, is_training=False)
        self._model = model.eval().to(memory_format=torch.channels_last).to(device)
        self._one_at_a_time = threading.Lock()
        # Of two pictures: a layer that works on windows or on none gives another number of outputs.
        output = self._output(np.zeros((2, *config["input_size"]), np.float32))
        self.layer_shape = tuple(output.shape[1:])
        self._averaged = self._axes(output, config["input_size"])
        self.dimensions = self._average(output).shape[1]

    @classmethod
    def load(cls, model: str, weights: str | Path | None, *, device: str) -> "TimmEncoder":
        """Load a model by name, from the hub or from a file. See `vecsearch.encoders.load`."""
        name, layer = parse(model)
        target = choose_device(device)
        # Zero classes take the classifier away, and the layer that is asked for with it.
        options: dict[str, Any] = {} if _is_of_head(layer, name) else {"num_classes": 0}
        if weights is None:
            return cls(_from_hub(name, options), name, layer, Weights(None, None), target)
        path = Path(weights).absolute()
        module = timm.create_model(name, pretrained=False, **options)
        _load_file(
            module, name, path, unwanted=[AUXILIARY, *(_classifiers(name) if options else [])]
        )
        return cls(module, name, layer, Weights.of_file(path), target)

    def prepare(self, pixels: "Picture") -> "NDArray[np.float32]":
        """Apply the model's own resize, crop and normalisation."""
        array: NDArray[np.float32] = self._transform(pixels).numpy()
        return array

    def embed(self, batch: "NDArray[np.float32]") -> "NDArray[np.float32]":
        """Return the layer's output as vectors, shape (n, dimensions)."""
        features: NDArray[np.float32] = self._average(self._output(batch)).float().cpu().numpy()
        return features

    def _output(self, batch: "NDArray[np.float32]") -> torch.Tensor:
        """Return the layer's output, shape (n, …)."""
        with torch.inference_mode():
            inputs = torch.from_numpy(batch).to(
                self._device, memory_format=torch.channels_last, non_blocking=True
            )
            if self.identity.layer == POOLED:
                pooled: torch.Tensor = self._model(inputs)
                return pooled.reshape(len(batch), -1)
            outputs = self._outputs_of_layer(inputs)
        match outputs:
            case [torch.Tensor() as output] if output.ndim > 1 and len(output) == len(batch):
                return output
            case [output]:
                raise self._unusable(_described(output))
        raise self._unusable(f"{len(outputs)} outputs" if outputs else "nothing")

    def _outputs_of_layer(self, inputs: torch.Tensor) -> list[Any]:
        """Return what the layer gives in one pass, once for each time it is used."""
        outputs: list[Any] = []

        def keep(_module: torch.nn.Module, _inputs: Any, output: Any) -> None:
            # A copy: the activation that follows may work in place.
            outputs.append(output.clone() if isinstance(output, torch.Tensor) else output)

        layer = self.identity.layer
        module = self._model.get_submodule(FC1_MODULE if layer == FC1 else layer)
        # The hook would hear a second thread's pass, too.
        with self._one_at_a_time, module.register_forward_hook(keep):
            self._model(inputs)
        return outputs

    def _axes(self, output: torch.Tensor, input_size: tuple[int, int, int]) -> tuple[int, ...]:
        """Return the axes of height and width, or of tokens."""
        match output.shape[1:]:
            case (_,):
                return ()
            case (_, _):
                return (1,)
            case (first, second, third):
                channels_last = getattr(self._model, "output_fmt", "") == "NHWC"
                if input_size[1] != input_size[2] or first == second == third:
                    return (1, 2) if channels_last else (2, 3)
                # A square picture's map is square: a layer may differ from its model's format.
                if second == third:
                    return (2, 3)
                if first == second:
                    return (1, 2)
        raise self._unusable(_described(output))

    def _average(self, output: torch.Tensor) -> torch.Tensor:
        return output.mean(self._averaged) if self._averaged else output

    def _unusable(self, given: str) -> EncoderError:
        return EncoderError(
            f"Layer {self.identity.layer} of {self.identity.model} gives {given} for 2 pictures, "
            "where a vector, a map or a sequence of tokens for each is needed. Name another layer."
        )


def _described(output: Any) -> str:
    if not isinstance(output, torch.Tensor):
        return f"a {type(output).__name__}"
    return " × ".join(map(str, output.shape)) or "a number"


def _from_hub(name: str, options: dict[str, Any]) -> torch.nn.Module:
    hint = (
        "Pass a weights file instead, --weights FILE (safetensors or a PyTorch state dict), "
        "or train an encoder that needs none: vecsearch train autoencoder FOLDER"
    )
    config = timm.get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        raise WeightsUnavailable(f"timm has no pretrained weights for {name}. {hint}")
    if config.hf_hub_id and not _is_cached(config.hf_hub_id):
        _require_hub(name, hint)
    try:
        model: torch.nn.Module = timm.create_model(name, pretrained=True, **options)
    except Exception as error:  # the hub's client raises its own, its HTTP library's and OSError
        raise WeightsUnavailable(
            f"The weights of {name} cannot be downloaded: {_first_line(error)}. {hint}"
        ) from error
    return model


def _is_cached(repository: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    files = ("model.safetensors", "pytorch_model.bin")
    return any(isinstance(try_to_load_from_cache(repository, file), str) for file in files)


def _require_hub(name: str, hint: str) -> None:
    """Ask the hub once: its client would retry for most of a minute before it gave up."""
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        raise WeightsUnavailable(
            f"The weights of {name} are not in the cache, and HF_HUB_OFFLINE is set. {hint}"
        )
    try:
        get_session().head(constants.ENDPOINT, timeout=HUB_TIMEOUT_S)
    except Exception as error:  # whatever its HTTP library raises
        raise WeightsUnavailable(
            f"The weights of {name} cannot be downloaded: {constants.ENDPOINT} cannot be reached "
            f"({_first_line(error)}). {hint}"
        ) from error


def _load_file(model: torch.nn.Module, name: str, path: Path, unwanted: list[str]) -> None:
    tensors = _read_tensors(path)
    prefixes = tuple(f"{module}." for module in unwanted)
    kept = {key: tensor for key, tensor in tensors.items() if not key.startswith(prefixes)}
    wanted = model.state_dict()
    needed = {key for key in wanted if not key.endswith("num_batches_tracked")}
    missing = sorted(needed - kept.keys())
    extra = sorted(kept.keys() - wanted.keys())
    reshaped = sorted(
        key for key in wanted.keys() & kept.keys() if wanted[key].shape != kept[key].shape
    )
    if missing or extra or reshaped:
        counts = (("missing", missing), ("unknown", extra), ("of another shape", reshaped))
        what = ", ".join(f"{len(keys)} {word} ({keys[0]})" for word, keys in counts if keys)
        raise WeightsMismatch(
            f"{path} does not hold weights of {name}: tensors {what}. "
            "Name the model they belong to with --model, or another file with --weights."
        )
    model.load_state_dict(kept, strict=False)


def _read_tensors(path: Path) -> Mapping[str, torch.Tensor]:
    if not path.is_file():
        raise WeightsUnavailable(f"The weights file {path} does not exist. Check --weights.")
    logger = logging.getLogger("timm.models._helpers")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        tensors: Any = timm.models.load_state_dict(str(path), weights_only=True)
    except Exception as error:  # torch, safetensors, zipfile: each its own
        # torch's own text would advise to load the file unsafely.
        raise WeightsUnavailable(
            f"{path} cannot be read as weights. "
            "Give a safetensors file or a PyTorch state dict of plain tensors."
        ) from error
    finally:
        logger.setLevel(level)
    if not isinstance(tensors, dict) or not all(
        isinstance(value, torch.Tensor) for value in tensors.values()
    ):
        raise WeightsUnavailable(
            f"{path} holds more than named tensors. "
            "Give a safetensors file or a PyTorch state dict of plain tensors."
        )
    return tensors


def _classifiers(name: str) -> list[str]:
    """Return the modules that a model without classes lacks."""
    config = timm.get_pretrained_cfg(name)
    classifier = (config.classifier if config is not None else None) or ()
    return [classifier] if isinstance(classifier, str) else list(classifier)


def _is_of_head(layer: str, name: str) -> bool:
    """Tell whether a layer is the classifier, holds it or shares a head with it."""
    return layer.partition(".")[0] in {part.partition(".")[0] for part in _classifiers(name)}


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
