"""D4RL's mazes for an ant and for a point, on MuJoCo alone.

gymnasium-robotics' mazes of the same names are other tasks: another ant (five times the torque, half the time per
step), mirrored maps, another origin, a smaller goal radius. A policy that was trained on D4RL's files can't be scored
there; in these it can. What was taken from where: docs/decisions/0005-mazes.md.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import gymnasium
import mujoco

ANT_FRAME_SKIP = 5  # a step of the environment is 5 x 0.02 s
Wall = tuple[float, float, float, float, float]  # x, y, z of the centre, half width, half height


def ant_model(walls: tuple[Wall, ...] = ()) -> mujoco.MjModel:
    """D4RL's ant (d4rl/locomotion/assets/ant.xml) among walls: gymnasium's body with other constants.

    Actions in [-1, 1] are torques of up to 30 N m at the eight joints.
    """
    root = ET.parse(Path(gymnasium.__file__).parent / "envs/mujoco/assets/ant.xml").getroot()
    _only(root, "option").set("timestep", "0.02")
    geom = _only(root, "default/geom")
    geom.set("solref", ".02 1")
    geom.set("solimp", ".8 .8 .01")
    for motor in root.iterfind("actuator/motor"):
        motor.set("gear", "30")
    _add_walls(_only(root, "worldbody"), walls)
    return mujoco.MjModel.from_xml_string(ET.tostring(root, encoding="unicode"))


def _add_walls(world: ET.Element, walls: tuple[Wall, ...]) -> None:
    for x, y, z, half_width, half_height in walls:
        ET.SubElement(
            world,
            "geom",
            type="box",
            pos=f"{x} {y} {z}",
            size=f"{half_width} {half_width} {half_height}",
            contype="1",
            conaffinity="1",
            rgba="0.7 0.5 0.3 1",
        )


def _only(root: ET.Element, path: str) -> ET.Element:
    found = root.findall(path)
    assert len(found) == 1, path
    return found[0]
