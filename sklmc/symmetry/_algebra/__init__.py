"""Labels without a net: leaves (index sets that move as one) and what can be done with axes."""
