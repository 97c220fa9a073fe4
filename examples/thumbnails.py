"""Thumbnails of every image below a folder, and a table of their sizes.

    python thumbnails.py PHOTOS [SIDE]

writes `thumbnails/` (JPEG files named as the images are, `manifest.json` when all are there) and `sizes.csv`. An image
that cannot be read is left out; `skybatch errors last` tells why. Needs `pip install 'skybatch[image]'`.
"""

import sys

import skybatch


class Thumbnail:
    """Shrinks images to fit into a square, keeping their shape."""

    def __init__(self, side=128):
        self.size = (side, side)

    def __call__(self, batch):
        results = []
        for item in batch:
            image = item["image"].convert("RGB")
            width, height = image.size
            image.thumbnail(self.size)
            results.append({"path": item["path"], "image": image, "width": width, "height": height})
        return results


if __name__ == "__main__":
    photos, side = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 128
    skybatch.Dataset(skybatch.ImageReader(photos)).map(
        Thumbnail,
        batch_size=16,
        output=[
            skybatch.ImageWriter("thumbnails", format="jpeg", name_column="path"),
            skybatch.CsvWriter("sizes.csv", column=["path", "width", "height"]),
        ],
        mapper_args={"side": side},
        on_error="skip",
    )
