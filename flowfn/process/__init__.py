"""This process: what a forked child has anew (forks), what an interrupt has to wait for (interrupts), and what its
interpreter can do (interpreter)."""
