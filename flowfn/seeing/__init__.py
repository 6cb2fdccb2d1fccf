"""Looking at flows. Looking never advances anything."""

from flowfn.seeing.explaining import explain

__all__ = ["explain"]
