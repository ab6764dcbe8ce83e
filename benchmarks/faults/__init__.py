"""What happens when processes are killed: run for real."""
