"""Faces in videos: frames in, one feature for each video out, frames that do not belong to it named."""
