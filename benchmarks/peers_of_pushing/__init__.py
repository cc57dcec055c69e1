"""The ways of pushing weights that benchmarks/pushing.py compares, each a module with a ``Learner`` and an ``Actor``.

A ``Learner(work, config)`` has an ``address`` (what actors need, as JSON can hold it), ``ready()`` (returns when every
actor is there), ``publish()`` and ``close()``. An ``Actor(work, config)`` has ``take()`` (returns when the next version
is in the policy), ``poll()`` (takes a version where one has come, without waiting; whether one had), ``path()`` (which
way the weights really came) and ``close()``. Either raises Unavailable where this machine lacks what it needs.
"""


class Unavailable(Exception):
    """A way of pushing that cannot be measured here; the text says why."""
