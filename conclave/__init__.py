"""The library that relay, bridge and command line share: model, protocols, client, keys, configuration."""

__version__ = "0.4.0"
