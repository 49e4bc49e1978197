"""Sites that cannot share data: a merge in rounds, in which sums travel and samples do not."""
