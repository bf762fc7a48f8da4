"""Mistakes that people make in any exercise."""
