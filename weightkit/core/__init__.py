"""Data: frozen types on the standard library alone, no I/O."""
