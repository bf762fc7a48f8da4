"""The embedded world: a small made-up town whose truth is known.

Knowledge, prompts, answers, gold scores, simulated annotators, and the build of the
models that live there. Uses the library; knows nothing of the course.
"""
