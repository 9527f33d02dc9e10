"""Parse --model for open_clip: open_clip:NAME/TAG, open_clip:NAME or open_clip:FILE.json."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip

from vecsearch.encoders.open_clip import PREFIX
from vecsearch.errors import UnknownModel
from vecsearch.vocabulary import did_you_mean

# The name that open_clip itself gives to a model's config; its folder says more.
USUAL_CONFIG = "open_clip_config"


@dataclass(frozen=True)
class Model:
    """A model of open_clip, without its weights.

    Attributes:
        name: as identities have it: open_clip:NAME/TAG, or, of a config's file,
            open_clip:FILE@HASH, where the hash is the architecture's.
        config: the architecture, as open_clip's `model_cfg`.
        preprocessing: how pictures are prepared, as open_clip's `preprocess_cfg`; what is missing
            has open_clip's defaults.
        pretrained: open_clip's entry of the tag, which says where the weights are; None without a
            tag.

    """

    name: str
    config: dict[str, Any]
    preprocessing: dict[str, Any]
    pretrained: dict[str, Any] | None


def parse(model: str) -> Model:
    """Return the model that a --model value means.

    Raises:
        UnknownModel: there is no such model or tag, or the file is not a config.

    """
    rest = model.removeprefix(PREFIX)
    if rest.endswith(".json"):
        return _of_file(Path(rest).expanduser().absolute())
    name, _, tag = rest.partition("/")
    known = open_clip.list_models()
    if name not in known:
        hint = did_you_mean(name, known) or "See open_clip.list_models()."
        raise UnknownModel(
            f"open_clip has no model {name!r}. {hint} A model of your own is the file of its "
            f"config: {PREFIX}FILE.json"
        )
    config: dict[str, Any] = open_clip.get_model_config(name)
    if not tag:
        return Model(f"{PREFIX}{name}", config, {}, None)
    tags = tags_of(name)
    if tag not in tags:
        raise UnknownModel(
            f"open_clip has no weights {tag!r} of {name}. Its tags: {', '.join(tags) or 'none'}."
        )
    pretrained: dict[str, Any] = open_clip.get_pretrained_cfg(name, tag)
    _require_activation(name, tag, config, pretrained)
    return Model(f"{PREFIX}{name}/{tag}", config, pretrained, pretrained)


def tags_of(name: str) -> list[str]:
    """Return the tags of the weights that open_clip knows for a model of its own."""
    tags: list[str] = open_clip.list_pretrained_tags_by_model(name)
    return tags


def _require_activation(
    name: str, tag: str, config: dict[str, Any], pretrained: dict[str, Any]
) -> None:
    """Check that the model computes with the activation that the weights were trained with.

    open_clip loads such weights with a warning, and the model then finds less.
    """
    if bool(config.get("quick_gelu")) == bool(pretrained.get("quick_gelu")):
        return
    other = name.removesuffix("-quickgelu") if config.get("quick_gelu") else f"{name}-quickgelu"
    raise UnknownModel(
        f"The weights {tag!r} were trained with another activation than {name} has. "
        f"Name the model that has it: {PREFIX}{other}/{tag}"
    )


def _of_file(path: Path) -> Model:
    try:
        stored = json.loads(path.read_text("utf-8"))
        config = stored.get("model_cfg", stored)
        preprocessing = stored.get("preprocess_cfg", {})
        parts = (config["vision_cfg"], config["text_cfg"], preprocessing)
        is_config = "embed_dim" in config and all(isinstance(part, dict) for part in parts)
    except KeyError:
        is_config = False
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise UnknownModel(
            f"{path} cannot be read as a config of open_clip ({error}). Check the path."
        ) from error
    if not is_config:
        raise UnknownModel(
            f"{path} is not a config of open_clip: it needs embed_dim, vision_cfg and text_cfg, "
            "by themselves or within model_cfg. Give the file that open_clip made."
        )
    stem = path.parent.name if path.stem == USUAL_CONFIG else path.stem
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()
    return Model(f"{PREFIX}{stem}@{digest[:8]}", config, preprocessing, None)
