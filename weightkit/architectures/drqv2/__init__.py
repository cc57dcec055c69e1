"""DrQ-v2: a convolutional tower per camera, an actor, critics with targets. Native layout ``drqv2``."""
