"""Repairs of a merged net: each a file; ``_repair.py`` lists them and chooses."""
