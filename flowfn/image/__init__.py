"""Images: augmentors that treat image, mask, coordinates and boxes alike.

    from flowfn import image

    transform = image.flip(horizontal=True)(picture.shape, rng)     # everything random is decided here
    transform.image(picture), transform.mask(mask), transform.coords(points), transform.boxes(boxes)

Images are arrays (height, width) or (height, width, channels), uint8 or float32 (0 to 255 too), in RGB order.
Coordinates are floats (n, 2), x then y, boxes (n, 4), x1 y1 x2 y2, in pixels: the image covers [0, width] x [0,
height], so the centre of the pixel in row i and column j is (j + 0.5, i + 0.5); `convert_boxes` and
`augment(boxes_format=)` know other ways of writing boxes. Masks are arrays (height, width) of labels: `read_mask` reads
them from files, also those of images with a palette (PASCAL VOC, DAVIS), where `read_image` would give the colours.
"""

# ruff: noqa: E402
from flowfn.extras import needed

needed("cv2", "flowfn.image", extra="image")

# what augmentors and their transforms are
from flowfn.image.transforms import Augmentor, Composed, Identity, Transform  # isort: skip

# several augmentors as one
from flowfn.image.composing import apply_randomly, choose, identity, map_image, sequence, shuffled  # isort: skip

# geometry: image, mask, coordinates and boxes move together
from flowfn.image.geometry import flip, random_resize, resize, resize_shortest_edge, transpose  # isort: skip
from flowfn.image.warping import affine, rotation, rotation_and_crop_valid, shift  # isort: skip
from flowfn.image.deforming import gaussian_deform  # isort: skip
from flowfn.image.cropping import center_crop, random_crop, random_crop_random_shape, random_cutout, random_resized_crop  # isort: skip
from flowfn.image.pasting import center_paste, random_paste  # isort: skip

# colours and values: only the image changes
from flowfn.image.colors import hue, lighting, saturation  # isort: skip
from flowfn.image.tones import brightness, brightness_scale, contrast, gamma  # isort: skip
from flowfn.image.color_spaces import color_space, grayscale  # isort: skip
from flowfn.image.intensities import (
    clip,
    gaussian_blur,
    mean_variance_normalize,
    min_max_normalize,
    to_float32,
    to_uint8,
)  # isort: skip

from flowfn.image.normalizing import normalize  # isort: skip
from flowfn.image.noise import gaussian_noise, jpeg_noise, salt_pepper_noise  # isort: skip

# reading, and augmenting what was read
from flowfn.image.reading import decode_image, decode_mask, read_image, read_images, read_mask  # isort: skip
from flowfn.image.augmenting import augment  # isort: skip
from flowfn.image.box_formats import convert_boxes  # isort: skip
from flowfn.image.presets import fbresnet_train, fbresnet_val  # isort: skip

from flowfn.pickling.homes import publish as _publish  # isort: skip

_publish(__name__, globals())

__all__ = [
    "Augmentor",
    "Composed",
    "Identity",
    "Transform",
    "affine",
    "apply_randomly",
    "augment",
    "brightness",
    "brightness_scale",
    "center_crop",
    "center_paste",
    "choose",
    "clip",
    "color_space",
    "contrast",
    "convert_boxes",
    "decode_image",
    "decode_mask",
    "fbresnet_train",
    "fbresnet_val",
    "flip",
    "gamma",
    "gaussian_blur",
    "gaussian_deform",
    "gaussian_noise",
    "grayscale",
    "hue",
    "identity",
    "jpeg_noise",
    "lighting",
    "map_image",
    "mean_variance_normalize",
    "min_max_normalize",
    "normalize",
    "random_crop",
    "random_crop_random_shape",
    "random_cutout",
    "random_paste",
    "random_resize",
    "random_resized_crop",
    "read_image",
    "read_images",
    "read_mask",
    "resize",
    "resize_shortest_edge",
    "rotation",
    "rotation_and_crop_valid",
    "salt_pepper_noise",
    "saturation",
    "sequence",
    "shift",
    "shuffled",
    "to_float32",
    "to_uint8",
    "transpose",
]
