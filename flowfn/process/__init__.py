"""This process: what a forked child has anew (forks), and what an interrupt has to wait for (interrupts)."""
