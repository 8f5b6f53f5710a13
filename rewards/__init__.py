"""Reward models behind one protocol: `protocol.Reward`."""
