"""What the relay, the bridge and the command line share: model, protocol, handshake, keys, configuration."""

__version__ = "0.4.0"
