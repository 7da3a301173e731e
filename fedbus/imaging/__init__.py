"""Imaging studies in a site's folder: what there is, and each as an array with its place in space. No torch, no monai.

Begins in `studies` (which files belong together) and `volumes` (one file or series to one array).
"""
