"""What the user says about images: metadata, labels."""
