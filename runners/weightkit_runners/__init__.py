"""Thin learner and actor runners on weightkit. Importing this module imports neither torch nor mujoco."""

from __future__ import annotations

from weightkit_runners.frame_stack import FrameStackBuffer

__all__ = ["FrameStackBuffer"]
