"""Tokens where they lie: rows of token files, mapped into memory (reading, writing; layouts and files below them),
and Megatron-LM's documents (megatron, megatron_writing; indexes, documents and slices below them)."""
