"""Datapoints as bytes of others: msgpack (payloads), protocol buffers (messages)."""
