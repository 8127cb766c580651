"""Face images: sources, readers, writers, augmentation, batches."""

import os

# Read by OpenCV when it is loaded, and it is loaded by what follows: 1 MB of a hostile PNG can claim gigabytes of
# pixels. 32 Mpx (100 MB) still lets a photograph say its size in the message that refuses it.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(1 << 25))
