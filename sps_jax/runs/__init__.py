"""Runs that outlive their process: blocks of rounds, journals, checkpoints, signals, several processes."""
