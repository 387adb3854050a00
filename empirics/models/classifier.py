"""What every image classifier has: its loss."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Classifier(nn.Module):
    """Images (B, C, H, W) -> logits (B, classes)."""

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy per image.

        Args:
            images: Standardised pixels, shape (B, in_channels, H, W).
            labels: Class indices, shape (B,).

        Returns:
            Scalar, in nats.
        """
        return F.cross_entropy(self(images), labels)
