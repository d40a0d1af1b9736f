"""Custom TFX components. They know nothing of runners."""
