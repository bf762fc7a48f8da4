"""Grade a folder of executed notebooks."""
