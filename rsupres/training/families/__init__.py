"""Training of each family.

Mirrors `rsupres.families`: a folder a family with ``training`` (the class that the loop
works with) and ``losses``; Ref-Diff and SlimDiffSR have a third module.
"""
