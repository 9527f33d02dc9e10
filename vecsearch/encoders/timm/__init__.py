"""The encoder family timm: any model of timm, any layer of one."""
