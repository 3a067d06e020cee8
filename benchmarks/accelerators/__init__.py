"""The package's programs compiled for an H100 and a TPU v5e on a machine that has neither, and what they became."""
