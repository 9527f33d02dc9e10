"""The words of a classifier: each class is a vector in the space of the embeddings."""

from pathlib import Path

import torch
from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset

from vecsearch.encoders.base import POOLED, Concept, Identity
from vecsearch.encoders.tensors import tensors_sha256
from vecsearch.encoders.timm.weights import read_model
from vecsearch.errors import WeightsMismatch


def read_concepts(stored: Identity, source: str | Path | None) -> list[Concept]:
    """Return the classes of a model's original classifier, in its order.

    There are none if the layer is not the classifier's input, if the weights are others now or come
    without a classifier, or if its classes are not ImageNet's.

    Raises:
        WeightsUnavailable: see `vecsearch.errors`.

    """
    if stored.layer != POOLED:
        return []
    try:
        model, _ = read_model(stored.model, source, with_head=True)
    except WeightsMismatch:
        return []  # a file of the features alone
    head = getattr(model, "get_classifier", lambda: None)()
    subset = infer_imagenet_subset(model)
    if not isinstance(head, torch.nn.Linear) or subset is None:
        return []
    info = ImageNetInfo(subset)
    rows = head.weight.detach().float().numpy()
    biases = [0.0] * len(rows) if head.bias is None else head.bias.detach().float().tolist()
    model.reset_classifier(0)  # type: ignore[operator]  # a method of timm's models
    if tensors_sha256(model.state_dict()) != stored.weights_sha256:
        return []
    concepts = []
    for number, (row, bias) in enumerate(zip(rows, biases, strict=True)):
        name, *synonyms = info.index_to_description(number).split(", ")
        _, _, definition = info.index_to_description(number, detailed=True).partition(": ")
        concepts.append(Concept(number, name, tuple(synonyms), definition, row, bias))
    return concepts
