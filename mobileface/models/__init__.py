"""Networks, built from the walk of an architecture."""

from mobileface.models.build import build

__all__ = ["build"]
