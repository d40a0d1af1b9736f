"""The user code that TFX components import by dotted path."""
