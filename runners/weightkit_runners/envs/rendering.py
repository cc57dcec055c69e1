"""Drawing without a display: how mujoco draws is chosen before its import, or what to install is named.

mujoco reads ``MUJOCO_GL`` at import and on Linux takes a window system where it is unset. So the choice comes
first, and mujoco is imported through ``import_mujoco``.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import weakref
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

LibraryLoader = Callable[[str], Any]
"""Loads a shared library by file name like ``ctypes.CDLL``; raises OSError where there is none."""

EGL_LIBRARY = "libEGL.so.1"
OSMESA_LIBRARIES = ("libOSMesa.so.8", "libOSMesa.so.6", "libOSMesa.so")

_WINDOWED = frozenset({"glfw", "glx", "enable", "enabled", "on", "true", "1"})
_DISABLED = frozenset({"disable", "disabled", "off", "false", "0"})

# Source: the Khronos registry, EGL_EXT_platform_device.
_EGL_PLATFORM_DEVICE_EXT = 0x313F
_MAX_EGL_DEVICES = 32

_MAX_GEOMS = 64


class RenderingUnavailable(RuntimeError):
    """Nothing on this machine can draw; the one sentence of the message names what to install or to set."""


def choose_gl_backend(
    environ: MutableMapping[str, str] = os.environ, *, load_library: LibraryLoader = ctypes.CDLL
) -> str:
    """The backend to draw with: ``egl``, ``osmesa`` or ``glfw``; put into ``MUJOCO_GL`` where it is unset.

    A value set by the user is respected and only checked; else ``egl`` where a system EGL initializes a
    device, else ``osmesa``. ``glfw`` is never chosen: it needs a display.

    Raises:
        RenderingUnavailable: neither works, or what the user set does not.
    """
    requested = environ.get("MUJOCO_GL", "").lower().strip()
    if not requested:
        backend = _first_working_backend(environ, load_library)
        environ["MUJOCO_GL"] = backend
        return backend
    problem = _requested_problem(requested, environ, load_library)
    if problem is not None:
        raise RenderingUnavailable(f"cannot draw with MUJOCO_GL={requested}: {problem}")
    return "glfw" if requested in _WINDOWED else requested


def import_mujoco() -> Any:
    """The mujoco module, imported with a ``MUJOCO_GL`` that can draw, or with drawing off where none can.

    Raises:
        ModuleNotFoundError: mujoco is not installed.
    """
    try:
        choose_gl_backend()
    except RenderingUnavailable:
        # mujoco fails to import with a backend whose library is missing, and simulating needs none.
        with _environment_value("MUJOCO_GL", "disabled"):
            return _installed_mujoco()
    return _installed_mujoco()


@contextlib.contextmanager
def _environment_value(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _installed_mujoco() -> Any:
    try:
        return import_module("mujoco")
    except ModuleNotFoundError as error:
        if error.name != "mujoco":
            raise
        raise ModuleNotFoundError(
            "the arm environment needs mujoco, which is not installed: pip install 'weightkit[arm]'",
            name="mujoco",
        ) from error


class CameraRenderer:
    """Draws a model's named cameras off screen, into images of one size; used by one thread.

    Holds its own GL context of the chosen backend, so it works where mujoco was imported before the choice.

    Raises:
        RenderingUnavailable: this machine cannot draw.
    """

    def __init__(self, model: Any, *, height: int, width: int) -> None:
        backend = choose_gl_backend()
        self._mujoco = mujoco = import_mujoco()
        self._model = model
        # A buffer of the image's own size: clearing and reading mujoco's default one costs more than drawing.
        model.vis.global_.offheight, model.vis.global_.offwidth = height, width
        self._gl_context: Any = import_module(f"mujoco.{backend}").GLContext(width, height)
        self._gl_context.make_current()
        self._context: Any = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self._scene = mujoco.MjvScene(model, _MAX_GEOMS)
        flags = mujoco.mjtRndFlag
        for flag in (flags.mjRND_SHADOW, flags.mjRND_REFLECTION, flags.mjRND_SKYBOX):
            self._scene.flags[flag] = False
        self._options = mujoco.MjvOption()
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._rectangle = mujoco.MjrRect(0, 0, width, height)
        self._rows = np.empty((height, width, 3), dtype=np.uint8)
        # Freed with its own GL context current: a collected one frees its textures in whichever is current.
        self._free = weakref.finalize(self, _free_contexts, self._gl_context, self._context)
        self._free.atexit = False

    def draw(self, data: Any, camera: str) -> NDArray[np.uint8]:
        """What ``camera`` sees of ``data``: a new uint8 array (3, H, W), first row on top."""
        if not self._free.alive:
            raise RuntimeError("the renderer is closed")
        mujoco = self._mujoco
        self._gl_context.make_current()
        self._camera.fixedcamid = self._model.camera(camera).id
        everything = mujoco.mjtCatBit.mjCAT_ALL
        mujoco.mjv_updateScene(self._model, data, self._options, None, self._camera, everything, self._scene)
        mujoco.mjr_render(self._rectangle, self._scene, self._context)
        mujoco.mjr_readPixels(self._rows, None, self._rectangle, self._context)
        # GL counts rows from the bottom.
        return np.ascontiguousarray(self._rows[::-1].transpose(2, 0, 1))

    def close(self) -> None:
        """Free the GL context; a second call does nothing."""
        self._free()


def _free_contexts(gl_context: Any, context: Any) -> None:
    gl_context.make_current()
    context.free()
    gl_context.free()


def _first_working_backend(environ: Mapping[str, str], load_library: LibraryLoader) -> str:
    egl_problem = _egl_problem(environ, load_library)
    if egl_problem is None:
        return "egl"
    osmesa_problem = _osmesa_problem(environ, load_library)
    if osmesa_problem is None:
        return "osmesa"
    raise RenderingUnavailable(f"cannot draw without a display: {egl_problem}; or {osmesa_problem}")


def _requested_problem(requested: str, environ: Mapping[str, str], load_library: LibraryLoader) -> str | None:
    if requested == "egl":
        return _egl_problem(environ, load_library)
    if requested == "osmesa":
        return _osmesa_problem(environ, load_library)
    if requested in _DISABLED:
        return "that value turns drawing off, so unset it or set egl or osmesa"
    if requested not in _WINDOWED:
        return "mujoco knows no such value, so unset it or set egl, osmesa or glfw"
    if environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY"):
        return None
    return "it needs a display and neither DISPLAY nor WAYLAND_DISPLAY is set, so unset it or set egl or osmesa"


def _egl_problem(environ: Mapping[str, str], load_library: LibraryLoader) -> str | None:
    conflict = _platform_conflict("egl", environ)
    if conflict is not None:
        return conflict
    try:
        library = load_library(EGL_LIBRARY)
    except OSError:
        return f"EGL has no {EGL_LIBRARY}, install the Debian packages libegl1 and libegl-mesa0"
    if _egl_initializes(library):
        return None
    return f"{EGL_LIBRARY} initializes no device, install the Debian package libegl-mesa0"


def _osmesa_problem(environ: Mapping[str, str], load_library: LibraryLoader) -> str | None:
    conflict = _platform_conflict("osmesa", environ)
    if conflict is not None:
        return conflict
    for name in OSMESA_LIBRARIES:
        with contextlib.suppress(OSError):
            load_library(name)
            return None
    return f"OSMesa has no {OSMESA_LIBRARIES[-1]}, install the Debian package libosmesa6"


def _platform_conflict(backend: str, environ: Mapping[str, str]) -> str | None:
    platform = environ.get("PYOPENGL_PLATFORM", "").lower()
    if platform in ("", backend):
        return None
    return f"{backend} is refused while PYOPENGL_PLATFORM is {platform}, unset that variable"


def _egl_initializes(library: Any) -> bool:
    """Whether any EGL device initializes; a dispatch library without a driver loads and has none."""
    address_of = library.eglGetProcAddress
    address_of.restype = ctypes.c_void_p
    address_of.argtypes = [ctypes.c_char_p]
    query_address = address_of(b"eglQueryDevicesEXT")
    display_address = address_of(b"eglGetPlatformDisplayEXT")
    if not query_address or not display_address:
        return False
    query_type = ctypes.CFUNCTYPE(
        ctypes.c_uint, ctypes.c_int, ctypes.POINTER(ctypes.c_void_p), ctypes.POINTER(ctypes.c_int)
    )
    display_type = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_uint, ctypes.c_void_p, ctypes.c_void_p)
    query_devices, get_display = query_type(query_address), display_type(display_address)
    initialize = library.eglInitialize
    initialize.restype = ctypes.c_uint
    initialize.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]

    devices = (ctypes.c_void_p * _MAX_EGL_DEVICES)()
    count = ctypes.c_int(0)
    if not query_devices(_MAX_EGL_DEVICES, devices, ctypes.byref(count)):
        return False
    displays = (get_display(_EGL_PLATFORM_DEVICE_EXT, device, None) for device in devices[: count.value])
    return any(display and initialize(display, None, None) for display in displays)
