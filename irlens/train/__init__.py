"""Training on candidate lists: losses, batches, the trainer, and LarPO's loop."""
