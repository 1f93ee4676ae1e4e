"""What acts: planning with a model, inferring the task, exploring."""
