"""Layered people from a few photographs, in the spirit of USR (arXiv 2302.10518), without 3-D supervision.

Images, calibrated cameras, masks and 2-D parsing labels are used; 3-D shape is never trained on. Shape letters of this
room: V views, H and W rows and columns of a picture, N points, S samples of a ray, M vertices, F faces, J joints, K
classes. Lengths are metres, cameras OpenCV's, pixels are counted from the top left corner of a picture: the
middle of its first is (0.5, 0.5).
"""

__all__: list[str] = []
