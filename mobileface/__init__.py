"""The mobile-face model factory: from a budget and face images to an exported face-embedding network."""

__version__ = "0.1.0"
