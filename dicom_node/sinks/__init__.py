"""Where derived instances go."""
