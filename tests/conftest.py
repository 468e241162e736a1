"""How long Hypothesis looks: in plain `pytest` at the same hundred examples each time, for more of them, that differ,
`--hypothesis-profile=long`.
"""

from hypothesis import settings

settings.register_profile("short", deadline=None, derandomize=True, max_examples=100, stateful_step_count=20)
settings.register_profile("long", deadline=None, max_examples=800, stateful_step_count=50, print_blob=True)
settings.load_profile("short")
