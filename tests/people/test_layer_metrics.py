"""Measures of layers on shapes whose values are known."""

import numpy as np
import pytest

from fedloom.base.errors import DataError
from fedloom.people.layer_metrics import (
    edge_strain,
    label_iou,
    mean_label_iou,
    penetration,
    roughness_mm,
    seam_chamfer_cm,
    signed_bias_mm,
)
from fedloom.people.meshes import Mesh
from fedloom.people.nearest import NearestPoints
from support.shapes3d import sphere


def circle(radius, count, height=0.0):
    yaw = np.arange(count) * 2 * np.pi / count
    return np.stack([radius * np.sin(yaw), np.full(count, height), radius * np.cos(yaw)], 1)


def test_iou_is_by_area_over_the_classes_that_are_there():
    labels, truth, area = np.array([1, 1, 2, 4]), np.array([1, 2, 2, 1]), np.array([1.0, 2.0, 3.0, 4.0])
    assert label_iou(labels, truth, area, [1, 2, 3, 4]) == {1: 1 / 7, 2: 3 / 5, 4: 0.0}
    assert mean_label_iou(labels, truth, area, [1, 2, 3, 4]) == pytest.approx((1 / 7 + 3 / 5) / 3)
    assert mean_label_iou(truth, truth, area, [1, 2]) == 1


def test_seams_at_two_heights_lie_their_difference_apart():
    assert seam_chamfer_cm([circle(0.2, 90)], [circle(0.2, 50, 0.03)]) == pytest.approx(3, abs=0.01)
    assert seam_chamfer_cm([circle(0.2, 90)], [circle(0.2, 90)]) < 1e-9


def test_the_roughness_of_a_circle_is_its_curvature_and_of_a_staircase_more():
    assert roughness_mm(circle(0.2, 400)) == pytest.approx(1000 * 0.01**2 / 0.2, rel=0.02)
    steps = circle(0.2, 100)
    steps[:, 1] = np.where(np.arange(100) % 2, 0.01, 0)
    assert roughness_mm(steps) > 5 * roughness_mm(circle(0.2, 100))


def test_penetration_of_a_ball_in_a_ball():
    body = NearestPoints(sphere(0.3, 40))
    assert penetration(circle(0.31, 50), body).percent == 0
    half = np.concatenate([circle(0.29, 50), circle(0.28, 50), circle(0.32, 100)])
    found = penetration(half, body)
    assert found.percent == 50 and found.deepest_mm == pytest.approx(20, abs=0.6)
    assert found.mean_depth_mm == pytest.approx(15, abs=0.6)


def test_bias_keeps_the_sign_and_distance_does_not():
    distance, bias = signed_bias_mm(
        np.concatenate([circle(0.31, 50), circle(0.28, 50)]), NearestPoints(sphere(0.3, 40))
    )
    assert distance == pytest.approx(15, abs=0.6) and bias == pytest.approx(-5, abs=0.6)


def test_strain_is_that_of_a_stretch():
    mesh = sphere(0.3, 10)
    turned = mesh.vertices @ np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 1.0]])
    assert edge_strain(mesh, turned) < 1e-12
    assert edge_strain(mesh, mesh.vertices * 1.1) == pytest.approx(0.1)


def test_what_cannot_be_measured_is_refused():
    with pytest.raises(DataError, match="one length"):
        label_iou(np.ones(3, int), np.ones(2, int), np.ones(3), [1])
    with pytest.raises(DataError, match="none of the classes"):
        mean_label_iou(np.ones(3, int), np.ones(3, int), np.ones(3), [4])
    with pytest.raises(DataError, match="found 0 and 1"):
        seam_chamfer_cm([], [circle(0.2, 9)])
    with pytest.raises(DataError, match="without length"):
        edge_strain(Mesh(np.zeros((3, 3)), np.array([[0, 1, 2]])), np.zeros((3, 3)))
