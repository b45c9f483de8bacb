"""What all tests share."""

from __future__ import annotations

from hypothesis import settings

# How long an example takes says more about the machine's other work than about ours.
settings.register_profile("rsupres", deadline=None)
settings.load_profile("rsupres")
