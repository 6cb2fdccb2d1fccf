#!/usr/bin/env bash
# albumentations 2.0.8 (opencv-python-headless 4.12.0.88, numpy 2.2.6), Python 3.11: where do keypoints go in ElasticTransform?
#
# Guess: as floats, to where the image's displacement takes them; with remove_invisible=False as many come out as went in.
# Seen: each is drawn as a small disc around its rounded pixel into one mask, the mask is warped, and the first pixel of its number in
# reading order is the keypoint. So, with next to no displacement, (50.4, 40.3) comes out at (50, 39), and of two keypoints in one
# pixel the first is painted over and is gone, whatever remove_invisible says. keypoint_remapping_method="direct" keeps both, as one:
# at (50, 40). GridDistortion, OpticalDistortion, PiecewiseAffine and ThinPlateSpline have it from the same base class.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check albumentations==2.0.8 opencv-python-headless==4.12.0.88 numpy==2.2.6
NO_ALBUMENTATIONS_UPDATE=1 "$work/venv/bin/python" - <<'PYTHON'
import albumentations as A
import numpy as np

image = np.zeros((100, 120, 3), np.uint8)


def moved(keypoints, **how):
    still = A.ElasticTransform(alpha=1e-6, sigma=10, p=1, **how)
    compose = A.Compose([still], keypoint_params=A.KeypointParams("xy", remove_invisible=False))
    return np.round(compose(image=image, keypoints=np.array(keypoints))["keypoints"], 2).tolist()


seen = [
    moved([[50.4, 40.3]]),
    moved([[50.4, 40.3], [50.2, 40.1]]),
    moved([[50.4, 40.3], [50.2, 40.1]], keypoint_remapping_method="direct"),
]
expected = [[[50.0, 39.0]], [[50.0, 39.0]], [[50.0, 40.0], [50.0, 40.0]]]
print(f"albumentations {A.__version__}: one keypoint {seen[0]}, two in a pixel {seen[1]}, the same directly {seen[2]}")
raise SystemExit(seen != expected)
PYTHON
