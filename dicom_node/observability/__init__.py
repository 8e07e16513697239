"""What the operator reads: event names and log lines."""
