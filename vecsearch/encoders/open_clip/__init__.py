"""The encoder family open_clip: pictures and sentences in one space."""

OPEN_CLIP = "open_clip"
# What precedes a model's name: open_clip:ViT-B-32/laion2b_s34b_b79k.
PREFIX = f"{OPEN_CLIP}:"
# The key of the architecture in an identity's preprocessing: a config's file may be gone later.
CONFIG = "model_cfg"
