"""What the operator decided: validated once, frozen, handed on as values."""
