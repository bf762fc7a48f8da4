"""How the town is made: corpus, models, suites, and what they can do."""
