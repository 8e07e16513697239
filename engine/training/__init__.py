"""Training: volumes in, a run folder with checkpoints and curves out. The node never imports it."""
