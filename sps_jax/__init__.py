"""Simulation of communication-efficient, sparse federated learning."""

__version__ = "0.1.0"
