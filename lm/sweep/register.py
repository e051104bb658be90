"""Register the sweepers with Hydra."""

from __future__ import annotations


def register() -> None:
    """Tell Hydra the sweepers: hydra/sweeper=search and so on; the grid in the place of its own basic one."""
    from hydra.core.config_store import ConfigStore
    from hydra.core.plugins import Plugins

    plugins = Plugins.instance()  # which registers Hydra's own, so it comes first
    from lm.sweep.grid import Grid
    from lm.sweep.population import Population
    from lm.sweep.search import Search

    for name, sweeper in {"basic": Grid, "search": Search, "population": Population}.items():
        target = f"hydra_plugins.lm.{name}"  # an alias: Hydra refuses names that begin otherwise
        plugins.class_name_to_class[target] = sweeper
        ConfigStore.instance().store(group="hydra/sweeper", name=name, node={"_target_": target, "params": None})
