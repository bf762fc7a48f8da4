"""What the command `labs` does. Uses labs_helpers, which knows nothing of it."""
