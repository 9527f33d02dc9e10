"""Choose the engine that runs an encoder: torch, or OpenVINO with a cached export."""

import ctypes
import importlib.metadata
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

from vecsearch.config import Runtime
from vecsearch.encoders.base import Encoder, Identity, Weights
from vecsearch.encoders.openvino.cache import Cache, Exported, Refused
from vecsearch.encoders.openvino.engine import EngineEncoder, EngineTexts, available
from vecsearch.encoders.openvino.fallback import go_on_with_torch
from vecsearch.errors import EncoderError, InvalidInput, WeightsUnavailable
from vecsearch.vocabulary import Engine, Precision

if TYPE_CHECKING:
    from vecsearch.encoders.base import TextTower, Tokenize
    from vecsearch.encoders.network import TorchEncoder

# The layer of a text tower in the cache, where an encoder's export is that of its image tower.
TEXT = "text"
# What a text tower's export is compared with torch on.
TELLING = (
    "dog",
    "a red circle",
    "two children are playing football on a beach at sunset",
    "a photo of a street sign that says STOP, taken at night in the rain",
)
_DRIVERS = ("libcuda.so.1", "libamdhip64.so")


def kept(identity: Identity, weights: Weights, runtime: Runtime) -> EngineEncoder | None:
    """Return an encoder that runs its cached export, without torch; None if there is none.

    Also None if the runtime does not use OpenVINO.
    """
    if not _on_engine(runtime):
        return None
    found = _cache(runtime).find(identity)
    if found is None or isinstance(found, Refused):
        return None
    return EngineEncoder(identity, weights, found)


def quickest(encoder: "TorchEncoder", runtime: Runtime) -> Encoder:
    """Return the fastest way to run a loaded encoder.

    Raises:
        EncoderError: the user chose OpenVINO, which cannot run it.

    """
    if encoder.device.type != "cpu" or not _on_engine(runtime):
        return encoder
    found = _cache(runtime).find(encoder.identity)
    insist = runtime.engine == Engine.openvino
    if found is None:
        from vecsearch.encoders.openvino.export import Exporting

        return Exporting(encoder, _cache(runtime), insist=insist)
    if isinstance(found, Refused):
        go_on_with_torch(encoder.identity, found.reason, insist=insist)
        return encoder
    return EngineEncoder(encoder.identity, encoder.weights, found)


def texts(
    identity: Identity,
    runtime: Runtime,
    load: "Callable[[], TorchEncoder]",
    tokenize: "Tokenize",
) -> "TextTower":
    """Return the fastest way to run an encoder's text tower: an export, or torch.

    Args:
        identity: the encoder, in any precision; texts are embedded in float32.
        runtime: how encoders run.
        load: loads it on torch; not called if the export is cached.
        tokenize: prepares texts for it.

    Raises:
        EncoderError: the user chose OpenVINO, which cannot run it.

    """
    if not _on_engine(runtime):
        return load().texts()
    own = replace(identity, layer=TEXT, precision=Precision.fp32.value)
    found = _cache(runtime).find(own)
    if isinstance(found, Exported):
        return EngineTexts(found)
    tower = load().texts()
    if tower.device.type != "cpu":
        return tower
    if found is None:
        from vecsearch.encoders.openvino.export import exported_texts

        engine, refused = exported_texts(tower, own, tokenize(TELLING), _cache(runtime))
        if engine is not None:
            return engine
    else:
        refused = found.reason
    go_on_with_torch(own, refused, insist=runtime.engine == Engine.openvino)
    return tower


def exported(identity: Identity, runtime: Runtime) -> Exported:
    """Return the cached export of an encoder.

    Raises:
        EncoderError: there is none.

    """
    found = _cache(runtime).find(identity)
    if isinstance(found, Exported):
        return found
    raise EncoderError(
        f"{identity.name} has no export to OpenVINO that could be quantised. Leave --precision out."
    )


def require_engine(runtime: Runtime) -> Runtime:
    """Return the runtime that quantised encoders need: OpenVINO on the CPU.

    Raises:
        InvalidInput: OpenVINO is not installed, or the user chose another engine or device.

    """
    if runtime.engine == Engine.torch:
        raise InvalidInput("int8 runs on OpenVINO alone. Leave --engine torch out.")
    chosen = replace(runtime, engine=Engine.openvino)
    _on_engine(chosen)
    return chosen


def quantized(
    identity: Identity,
    weights: Weights,
    runtime: Runtime,
    find: Callable[[str], Exported | None],
) -> EngineEncoder:
    """Return a quantised encoder from the cache or else from `find`, which takes its precision.

    Raises:
        WeightsUnavailable: neither has it.
        InvalidInput: it cannot run on this machine.

    """
    runtime = require_engine(runtime)
    cache = _cache(runtime)
    found = cache.find(identity)
    if not isinstance(found, Exported):
        found = find(identity.precision)
        if found is None:
            raise WeightsUnavailable(
                f"The quantised model {identity.precision} is not in this database, so no picture "
                "can be embedded. Ingest into a new --collection."
            )
        # If the cache cannot be written, the next command only has to look it up again.
        with suppress(OSError):
            cache.add(identity, found)
    return EngineEncoder(identity, weights, found)


def exports(runtime: Runtime) -> Cache | None:
    """Return the cache of exports; None if the runtime does not use OpenVINO.

    Raises:
        InvalidInput: the user chose OpenVINO, which cannot run.

    """
    return _cache(runtime) if _on_engine(runtime) else None


def _on_engine(runtime: Runtime) -> bool:
    """Return whether OpenVINO should run encoders.

    Raises:
        InvalidInput: the user chose OpenVINO, which is not installed, or another device.

    """
    if runtime.engine == Engine.openvino:
        if not available():
            raise InvalidInput(
                "OpenVINO is not installed: there is no wheel of it for this system, or it was "
                "removed. Leave --engine out, and torch is used."
            )
        if runtime.device not in {"auto", "cpu"}:
            raise InvalidInput(
                f"OpenVINO runs encoders on the CPU, not on {runtime.device}. "
                "Leave --engine or --device out."
            )
        return True
    on_cpu = runtime.device == "cpu" or (runtime.device == "auto" and not _has_driver())
    return runtime.engine == Engine.auto and on_cpu and available()


@cache
def _has_driver() -> bool:
    """Return whether there is a GPU driver that torch could use, without importing torch."""
    for name in _DRIVERS:
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        return True
    return False


def _cache(runtime: Runtime) -> Cache:
    major = importlib.metadata.version("openvino").partition(".")[0]
    return Cache(runtime.cache_dir, f"openvino {major}")
