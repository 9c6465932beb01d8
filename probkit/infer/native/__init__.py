"""Native code for loss and gradient of a Pyro model: graph, C++ source, shared library."""
