"""The command line ``sps-jax``: its options, its commands, and what they print. Nothing else imports it."""
