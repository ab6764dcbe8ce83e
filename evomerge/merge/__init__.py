"""Recipe → weights: merge maths, checkpoints, a live model with resident experts, saving."""
