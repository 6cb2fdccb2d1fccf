"""One flow in many files: sharding, by names with numbers (naming), from one stream (dealing),
and of which flow (provenance)."""
