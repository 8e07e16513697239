"""Noise and content simulators: what a clean patch looks like after a scanner measured it."""
