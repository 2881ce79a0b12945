"""Every ranking and preference loss, by name: pure functions of log-probabilities and grades."""
