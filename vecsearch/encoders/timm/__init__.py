"""The encoder family timm: any model of timm, any layer of one."""

TIMM = "timm"
# The bare name means the original weights: those of newer training recipes give cosines that
# hardly tell pictures apart (pytorch/vision#8382).
ALIASES = {"resnet50": "resnet50.tv_in1k"}
