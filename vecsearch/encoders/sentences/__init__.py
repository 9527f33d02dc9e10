"""A sentence encoder, by which phrases are compared with the definitions of concepts."""
