"""Presets: the augmentors of well-known training scripts, ready to use and to take apart (`preset.augmentors`)."""

from __future__ import annotations

from flowfn.image.arguments import ImageSize
from flowfn.image.colors import lighting, saturation
from flowfn.image.composing import sequence, shuffled
from flowfn.image.cropping import center_crop, random_resized_crop
from flowfn.image.geometry import flip, resize_shortest_edge
from flowfn.image.tones import brightness_scale, contrast


def fbresnet_train(size: ImageSize = 224, *, interpolation: str = "cubic") -> sequence:
    """Augment an RGB image for training on ImageNet, as fb.resnet.torch and tensorpack's ResNet script do.

    A random part of 8 to 100 % of the area is resized to `size`; brightness,
    contrast and saturation are scaled by 0.6 to
    1.4, and AlexNet's lighting noise added, in a random order; half of the images are mirrored. uint8 [height, width,
    3] in RGB order goes in, uint8 `size` by `size` by 3 comes out; with `to_float32()` before it nothing is rounded
    between the steps. He et al., "Deep residual learning for image recognition", 2015; Szegedy et al., "Going deeper
    with convolutions", 2015, for the crop. The script's interpolation is "cubic"; "linear" is faster.

    >>> import numpy as np
    >>> fbresnet_train()((480, 640, 3), np.random.default_rng(0)).shape((480, 640, 3))
    (224, 224, 3)
    >>> fbresnet_train().augmentors[-1]
    flip(horizontal=True)
    """
    colors = [brightness_scale((0.6, 1.4)), contrast((0.6, 1.4), per_channel=False), saturation(0.4), lighting(0.1)]
    return sequence([random_resized_crop(size, interpolation=interpolation), shuffled(colors), flip(horizontal=True)])


def fbresnet_val(size: ImageSize = 224, *, shortest_edge: int = 256, interpolation: str = "cubic") -> sequence:
    """Prepare an image for validation on ImageNet: the shorter side resized to `shortest_edge`, and the middle cut out.

    Nothing is random. Images of any number of channels, uint8 or float32, go in; `size` by `size` of that dtype comes
    out. Krizhevsky et al., "ImageNet classification with deep convolutional neural networks", 2012, section 2, is the
    origin.

    >>> fbresnet_val()
    sequence([resize_shortest_edge(256, interpolation='cubic'), center_crop(224)])
    """
    return sequence([resize_shortest_edge(shortest_edge, interpolation=interpolation), center_crop(size)])
