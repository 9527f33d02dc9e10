"""Any timm model as an encoder: one of its layers, its own preprocessing."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import timm.models
import torch
from timm.data.config import resolve_model_data_config

from vecsearch.encoders.base import POOLED, Identity, Weights
from vecsearch.encoders.network import Network, TorchEncoder
from vecsearch.encoders.preprocessing import Preprocessing
from vecsearch.encoders.tensors import choose_device, tensors_sha256
from vecsearch.encoders.timm import TIMM
from vecsearch.encoders.timm.names import FC1, FC1_MODULE, parse
from vecsearch.errors import EncoderError, WeightsMismatch, WeightsUnavailable, first_line

HUB_TIMEOUT_S = 10.0
# A second head of Inception v3, used only in training: its files contain it, timm's model does not.
AUXILIARY = "AuxLogits"


class TimmEncoder(TorchEncoder):
    """A layer of a timm model, averaged to a vector. See `vecsearch.encoders.base.Encoder`.

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
        # The preprocessing depends on the weights; the defaults of create_transform differ.
        config = resolve_model_data_config(model)  # type: ignore[no-untyped-call]  # timm leaves it untyped
        identity = Identity(
            backend=TIMM,
            model=name,
            layer=layer,
            weights_sha256=tensors_sha256(model.state_dict()),
            preprocessing={
                key: list(value) if isinstance(value, tuple) else value
                for key, value in sorted(config.items())
            },
        )
        tap = {POOLED: None, FC1: FC1_MODULE}.get(layer, layer)
        network = Network(model, Preprocessing.of(identity.preprocessing), tap)
        super().__init__(identity, weights, network, device)
        # With two pictures: a layer that works on windows has another number of outputs.
        output = self._output_for_two()
        self.layer_shape = tuple(output.shape[1:])
        self.network.averaged = self._axes(output)
        averaged = set(self.network.averaged)
        [self.dimensions] = (
            side for axis, side in enumerate(output.shape) if axis and axis not in averaged
        )

    @classmethod
    def load(cls, model: str, weights: str | Path | None, *, device: str) -> "TimmEncoder":
        """Load a model by name, from the hub or from a file. See `registry.load`."""
        name, layer = parse(model)
        target = choose_device(device)
        # Zero classes remove the classifier, which may contain the requested layer.
        options: dict[str, Any] = {} if _is_of_head(layer, name) else {"num_classes": 0}
        if weights is None:
            return cls(_from_hub(name, options), name, layer, Weights(None, None), target)
        path = Path(weights).absolute()
        module = timm.create_model(name, pretrained=False, **options)
        _load_file(
            module, name, path, unwanted=[AUXILIARY, *(_classifiers(name) if options else [])]
        )
        return cls(module, name, layer, Weights.of_file(path), target)

    def _output_for_two(self) -> torch.Tensor:
        match outputs := self.outputs_for_two():
            case [torch.Tensor() as output] if output.ndim > 1 and len(output) == 2:  # noqa: PLR2004
                return output
            case [output]:
                raise self._unusable(_described(output))
        raise self._unusable(f"{len(outputs)} outputs" if outputs else "nothing")

    def _axes(self, output: torch.Tensor) -> tuple[int, ...]:
        """Return the axes of height and width, or of tokens."""
        size = self.preprocessing
        match output.shape[1:]:
            case (_,):
                return ()
            case (_, _):
                return (1,)
            case (first, second, third):
                channels_last = getattr(self.network.model, "output_fmt", "") == "NHWC"
                if size.height != size.width or first == second == third:
                    return (1, 2) if channels_last else (2, 3)
                # A layer's axes may differ from its model's; the map of a square picture is square.
                if second == third:
                    return (2, 3)
                if first == second:
                    return (1, 2)
        raise self._unusable(_described(output))

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
            f"The weights of {name} cannot be downloaded: {first_line(error)}. {hint}"
        ) from error
    return model


def _is_cached(repository: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    files = ("model.safetensors", "pytorch_model.bin")
    return any(isinstance(try_to_load_from_cache(repository, file), str) for file in files)


def _require_hub(name: str, hint: str) -> None:
    """Check once that the hub can be reached; its client would retry for most of a minute."""
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
            f"({first_line(error)}). {hint}"
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
        # torch's message would suggest an unsafe way to load the file.
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
    """Return the modules that only a model with classes has."""
    config = timm.get_pretrained_cfg(name)
    classifier = (config.classifier if config is not None else None) or ()
    return [classifier] if isinstance(classifier, str) else list(classifier)


def _is_of_head(layer: str, name: str) -> bool:
    """Return whether a layer is the classifier, contains it or shares a head with it."""
    return layer.partition(".")[0] in {part.partition(".")[0] for part in _classifiers(name)}
