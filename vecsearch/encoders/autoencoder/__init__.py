"""The encoder family autoencoder: trained on the user's own images."""

AUTOENCODER = "autoencoder"
