"""Register the sweepers with Hydra."""

from __future__ import annotations


def register() -> None:
    """Register hydra/sweeper=search and population with Hydra, and the grid in place of Hydra's basic sweeper."""
    from hydra.core.config_store import ConfigStore
    from hydra.core.plugins import Plugins

    plugins = Plugins.instance()  # first, because it registers Hydra's own sweepers
    from lm.sweep.grid import Grid
    from lm.sweep.population import Population
    from lm.sweep.search import Search

    for name, sweeper in {"basic": Grid, "search": Search, "population": Population}.items():
        target = f"hydra_plugins.lm.{name}"  # an alias, because Hydra requires names in hydra_plugins
        plugins.class_name_to_class[target] = sweeper
        ConfigStore.instance().store(group="hydra/sweeper", name=name, node={"_target_": target, "params": None})
