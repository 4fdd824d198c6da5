"""
Recall@1 of published methods on image sets of which VPR-Bench publishes every similarity.

Zaffar et al., 'VPR-Bench', IJCV 2021. Computed from the similarity matrices in its repository
(precomputed_matches/, revision 77ad30f) with its ground truth; of SPEDTest the queries and places
0 to 199, which are those of our set. The methods saw the images in full size, the set holds
thumbnails 97 pixels wide.
"""

from __future__ import annotations

PUBLISHED = {
    'corridor': {
        'HybridNet': 0.901, 'AMOSNet': 0.847, 'DenseVLAD': 0.703, 'AlexNet': 0.685,
        'NetVLAD (VGG-16)': 0.676, 'CoHOG': 0.622, 'AP-GeM (ResNet-101)': 0.532, 'HOG': 0.477,
        'RegionVLAD': 0.432, 'CALC': 0.324},
    'sped_thumb': {
        'AMOSNet': 0.830, 'HybridNet': 0.820, 'DenseVLAD': 0.775, 'NetVLAD (VGG-16)': 0.735,
        'AP-GeM (ResNet-101)': 0.645, 'RegionVLAD': 0.630, 'CoHOG': 0.555, 'AlexNet': 0.550,
        'CALC': 0.480, 'HOG': 0.480},
}
"""Recall@1 by the name of a set, and of a method."""
