"""The engine: it runs rounds of an algorithm on a problem, once, streaming clients from the host, or as a sweep."""
