"""Proof by test. Nothing here knows labels or rules: what is proved cannot help its own proof.

In the order of imports: `_draws` (which elements are tried), `_runners` (a graph in float64, and
how much its outputs change), `_prover` (random weights, moved and measured), `_trial` (the net
itself, with its own weights), `_fusion` (groups that may be one), `_proof` (which groups pass),
`_origin` (whether another net has them as well).
"""
