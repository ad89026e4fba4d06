"""What happens in which order, and nothing else."""
