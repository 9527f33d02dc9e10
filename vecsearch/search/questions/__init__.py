"""What is asked: pictures, stored images and words become the vectors that a search compares."""
