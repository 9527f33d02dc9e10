"""From pixels to vectors: `base` says what an encoder is, `registry` finds one."""
