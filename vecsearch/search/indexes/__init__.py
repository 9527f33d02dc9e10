"""Index methods: a class each, and the build that they share."""
