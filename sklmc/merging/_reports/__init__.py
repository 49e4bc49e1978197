"""What is told of a merge: samples kept for it, scores, intervals, the verdict."""
