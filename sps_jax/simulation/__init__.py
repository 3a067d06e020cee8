"""The engine: rounds of an algorithm on a problem, for one run, a stream of clients, or a sweep of points."""
