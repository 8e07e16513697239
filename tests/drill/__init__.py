"""The drill: a whole node is killed at every durable step, starved, cut off and paused; an oracle judges."""
