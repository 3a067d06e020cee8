"""The data of the research day: flowers of three kinds in six gardens, in ``data.parquet``."""

import numpy as np
import pandas

draw = np.random.default_rng(0)
kind = draw.integers(0, 3, 240)
centre = np.array([[0.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])[kind]
x = centre + 0.4 * draw.normal(size=centre.shape)
names = {"kind": np.array(["iris", "lily", "rose"])[kind], "garden": np.array(list("abcdef"))[np.arange(240) % 6]}
pandas.DataFrame({"width": x[:, 0], "length": x[:, 1]} | names).to_parquet("data.parquet")
