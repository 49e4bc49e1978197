"""The group and its action, without a net.

In the order of imports: `_group` (units that may be put in any order), `_permutation` (an element),
`_blocks` (where the units lie in a tensor, and what is frozen), `_mover` (an element applied to
tensors).
"""
