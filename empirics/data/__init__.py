"""Real data: batches are a pure function of (configuration, step), so a resumed run needs no loader state."""

from empirics.data.images import ImageData, Images
from empirics.data.pixels import PixelData, Pixels
from empirics.data.text import Text, TextData

__all__ = ["ImageData", "Images", "PixelData", "Pixels", "Text", "TextData"]
