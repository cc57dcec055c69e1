"""Soft actor-critic: encoders, a Gaussian actor, critics with targets, a discrete head. Native layout ``sac``."""
