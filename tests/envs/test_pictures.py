"""What environments of others draw, as a picture of a task."""

import numpy as np
import pytest

from hypercrl_envs import RenderingUnavailable
from hypercrl_envs.rendering import as_picture, fitted


def test_grey_and_transparent_pictures_become_coloured_ones():
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3)
    for given in (grey, grey[..., None], np.stack([grey] * 3, -1), np.stack([grey] * 4, -1)):
        np.testing.assert_array_equal(as_picture(given, "mine"), np.stack([grey] * 3, -1))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (np.zeros((4, 4, 3)), r"float64 \[4, 4, 3\]"),
        (np.zeros((4, 4, 2), np.uint8), r"uint8 \[4, 4, 2\]"),
        (np.zeros((0, 4, 3), np.uint8), r"uint8 \[0, 4, 3\]"),
        ([[1]], "list"),
        (None, "NoneType"),
    ],
)
def test_what_is_no_picture_is_said(given, told):
    with pytest.raises(RenderingUnavailable, match=f"^mine gave no picture: .* {told}, and"):
        as_picture(given, "mine")


def test_pictures_keep_their_shape():
    """A broad one lies in the middle, and is not stretched."""
    broad = np.full((2, 4, 3), 9, np.uint8)
    got = fitted(broad, 8, 8)[..., 0]
    assert got[:2].max() == got[6:].max() == 0
    assert (got[2:6] == 9).all()
    assert (fitted(broad, 1, 2) == 9).all()
    assert (fitted(np.full((4, 2, 3), 9, np.uint8), 8, 3)[1:7] == 9).all()
