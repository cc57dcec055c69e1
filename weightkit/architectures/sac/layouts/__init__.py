"""How other projects name SAC's tensors: a module with ``LAYOUT`` for each, its rules as TOML beside it."""
