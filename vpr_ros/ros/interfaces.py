"""The message classes of the installed ROS 2, for the builders in io/messages.py."""

from __future__ import annotations

from functools import cache
import importlib
from typing import Any


@cache
def rclpy_types(name: str) -> Any:
    """
    Return rclpy's class for a message type.

    Raises ModuleNotFoundError or AttributeError where that interface is not installed, ValueError
    when the name is not of the form 'package/msg/Name'.
    """
    package, kind, cls = name.split('/')
    return getattr(importlib.import_module(f'{package}.{kind}'), cls)
