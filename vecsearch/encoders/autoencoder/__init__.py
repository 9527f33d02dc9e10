"""The encoder family autoencoder: trained on the user's own images."""

AUTOENCODER = "autoencoder"
# What a training does unless it is told otherwise, and the sizes of pictures that it offers.
LATENT, EPOCHS, PATIENCE, SEED = 16, 30, 5, 0
IMAGE_SIZES = (32, 64, 128, 256)
