"""From graphs to groups.

In the order of imports: `_parts` (weights that forward cuts first), `_walk` (the rules applied node
by node until nothing changes), `_extraction` (labels become blocks and groups).
"""
