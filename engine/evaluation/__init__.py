"""Evaluation: model and peers on the same noisy volumes, in tables, pictures and JSON."""
