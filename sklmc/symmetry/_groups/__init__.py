"""The group and its action, without a net.

In the order of imports: `_group` (units that may be put in any order), `_plain_values` (as JSON),
`_permutation` (an element), `_blocks` (where the units lie in a tensor), `_structure` (all of it,
with what is frozen), `_mover` (an element applied to tensors).
"""
