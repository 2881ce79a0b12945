"""What a model's name means, how it reads a prompt, and the log-probabilities that it gives."""
