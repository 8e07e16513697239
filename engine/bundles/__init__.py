"""Shipped models: one folder each, read by `engine.bundle.load_bundle`."""
