"""Tokens where they lie, mapped into memory: token files (reading, writing, files; layouts: what stands before tokens),
and Megatron-LM's (megatron, megatron_writing; documents, slices across them, indexes)."""
