"""What the relay, the bridge and the command line share: model, protocols, logins, keys, configuration."""

__version__ = "0.4.0"
