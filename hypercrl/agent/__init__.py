"""What acts: planning with a model, believing in a task, exploring."""
