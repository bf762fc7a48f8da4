"""Preference alignment of language models: a library, a small world, a course.

The library (losses, advantages, sampling, fit, rl, ...) works on any Hugging Face
causal language model. `labs_helpers.world` is a made-up town whose true rewards are
known, `labs_helpers.course` makes the four labs of both. The library knows neither.

This module imports nothing: take names from the submodules.
"""

__version__ = "0.1.0"
