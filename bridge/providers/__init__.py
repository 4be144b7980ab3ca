"""One module a provider. Each defines PROVIDER, and that is its whole registration: `load()` finds it."""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from types import MappingProxyType

from bridge.verify import Provider


@cache
def load() -> Mapping[str, Provider]:
    """Every provider by its name, in the order of the names."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    found: list[Provider] = [import_module(f"{__name__}.{name}").PROVIDER for name in names]
    return MappingProxyType({provider.name: provider for provider in found})
