"""Imported before lerobot: lets its SAC policy be imported without what the rest of the package needs.

The package ``lerobot.policies`` imports every policy that there is, and the way to ``SACPolicy`` names packages that it
never uses. So that package is an empty one here, and those that are not installed are inert.
"""

import importlib.machinery
import importlib.util
import sys
import types

import pandas  # noqa: F401 - before a stand-in of pyarrow is there: pandas looks for it

UNUSED = {"PIL", "accelerate", "av", "datasets", "deepdiff", "imageio", "pyarrow", "serial", "torchvision"}


class Anything(type):
    """A class whose attributes are classes of its kind."""

    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return cls


class Inert(types.ModuleType):
    """A module that has every name."""

    __path__: list = []  # noqa: RUF012

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything(name, (), {"__init__": lambda self, *args, **kwargs: None})


class Finder:
    """Finds an inert module for what is not installed and not used."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.split(".")[0] in UNUSED:
            return importlib.machinery.ModuleSpec(name, Finder, is_package=True)
        return None

    @staticmethod
    def create_module(spec):
        return Inert(spec.name)

    @staticmethod
    def exec_module(module):
        pass


sys.meta_path.append(Finder)
policies = types.ModuleType("lerobot.policies")
policies.__path__ = [f"{importlib.util.find_spec('lerobot').submodule_search_locations[0]}/policies"]
sys.modules["lerobot.policies"] = policies
