"""The encoder family timm: any model of timm, any layer of one."""

TIMM = "timm"
# Newer recipes' weights give odd cosines (pytorch/vision#8382), so the bare name means the classic.
ALIASES = {"resnet50": "resnet50.tv_in1k"}
