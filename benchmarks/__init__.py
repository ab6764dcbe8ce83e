"""What evomerge costs and gains, measured."""
