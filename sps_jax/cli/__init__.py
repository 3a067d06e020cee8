"""The command line ``sps-jax``: its options, commands and output. No other package imports it."""
