"""The files of D4RL v2 that go by name: 18 MuJoCo and 6 AntMaze files (data: CC BY 4.0, arXiv:2004.07219).

Names and addresses: D4RL's `infos.py`. Sizes and SHA-256: TensorFlow Datasets, `d4rl_*/checksums.tsv`; episode counts:
its catalogue, one more than the completed episodes where a file ends mid-episode. D4RL's data were logged in
Gym's `-v2` environments, whose rewards gymnasium's `-v4` keep (`-v5` does not).
"""

from __future__ import annotations

from typing import NamedTuple

# tried in this order; {folder} and {file} are filled in from the table
MIRRORS = (
    "http://rail.eecs.berkeley.edu/datasets/offline_rl/{folder}/{file}",
    "https://huggingface.co/datasets/imone/D4RL/resolve/main/{file}",
)


class D4RLFile(NamedTuple):
    """One file. A file of another size or hash is not the published one, whatever its name."""

    folder: str  # on the official server
    file: str
    size: int  # bytes
    sha256: str
    env_id: str  # gymnasium id for evaluation; the mazes are itrpo.evaluation.mazes
    episodes: int


# fmt: off
D4RL_FILES: dict[str, D4RLFile] = {
    "halfcheetah-random-v2": D4RLFile(
        "gym_mujoco_v2", "halfcheetah_random-v2.hdf5", 237_338_037,
        "25407aef85b5d16c0f36b4149341edb4acc6a9e88c1db529b2de19e7464874ba", "HalfCheetah-v4", 1_000,
    ),
    "halfcheetah-medium-v2": D4RLFile(
        "gym_mujoco_v2", "halfcheetah_medium-v2.hdf5", 237_727_262,
        "41324e8487a9556d8cfa4538827f8937f4d63dae3030825ebc9f3a726ed08ca0", "HalfCheetah-v4", 1_000,
    ),
    "halfcheetah-medium-replay-v2": D4RLFile(
        "gym_mujoco_v2", "halfcheetah_medium_replay-v2.hdf5", 59_448_533,
        "48d494a4770c11f48260736dec090b78bdca8375647ed4d24bfa5b6610c7f683", "HalfCheetah-v4", 202,
    ),
    "halfcheetah-medium-expert-v2": D4RLFile(
        "gym_mujoco_v2", "halfcheetah_medium_expert-v2.hdf5", 474_567_252,
        "015db75dae5bbe8e94029b71fa0bafc2073365df0c94744e71031189f3f79c06", "HalfCheetah-v4", 2_000,
    ),
    "halfcheetah-expert-v2": D4RLFile(
        "gym_mujoco_v2", "halfcheetah_expert-v2.hdf5", 237_464_597,
        "d9fe53bb994eb1e20a99b4fa3412cd76a1bb7966a7ff55e0fcbdd6081bd2965f", "HalfCheetah-v4", 1_000,
    ),
    "halfcheetah-full-replay-v2": D4RLFile(
        "gym_mujoco_v2", "halfcheetah_full_replay-v2.hdf5", 291_381_762,
        "27fdf7ea86e5a2cbd24d611ae9e703c86ec2e8e52823abc69dd9af6afb3a36c0", "HalfCheetah-v4", 1_000,
    ),
    "hopper-random-v2": D4RLFile(
        "gym_mujoco_v2", "hopper_random-v2.hdf5", 152_525_345,
        "63103ef7059db4c0819bd054f4e83ff339030b50bcdb46bdbe50385f234b5054", "Hopper-v4", 45_240,
    ),
    "hopper-medium-v2": D4RLFile(
        "gym_mujoco_v2", "hopper_medium-v2.hdf5", 152_756_557,
        "5bdf1bc4a713c82941de44633df669b36c89850b652a25985166796d25cf71a0", "Hopper-v4", 2_187,
    ),
    "hopper-medium-replay-v2": D4RLFile(
        "gym_mujoco_v2", "hopper_medium_replay-v2.hdf5", 75_854_457,
        "e121c5f7c9857a307baa9edc6a2c3b48e85fedb9ac316ecddd0f48ca7ef4e39b", "Hopper-v4", 2_041,
    ),
    "hopper-medium-expert-v2": D4RLFile(
        "gym_mujoco_v2", "hopper_medium_expert-v2.hdf5", 304_537_315,
        "9d51ad87f8c905be3880d84c6140bcdb7fbf39a19e046a237f238ba34fec9e26", "Hopper-v4", 3_214,
    ),
    "hopper-expert-v2": D4RLFile(
        "gym_mujoco_v2", "hopper_expert-v2.hdf5", 152_427_435,
        "01aa219a5f8eea5e639eccdc636ec2bf40e317159a95cf4bf6e985f16909941b", "Hopper-v4", 1_028,
    ),
    "hopper-full-replay-v2": D4RLFile(
        "gym_mujoco_v2", "hopper_full_replay-v2.hdf5", 187_998_921,
        "56baf95963c51c1e964049a974566c50ba80f289390565523e60c0ba83e0982e", "Hopper-v4", 3_515,
    ),
    "walker2d-random-v2": D4RLFile(
        "gym_mujoco_v2", "walker2d_random-v2.hdf5", 216_109_364,
        "4e863bb6090cf4a461548bd470564b32f1ae5b32ef3085f816b2ede7f092e7fa", "Walker2d-v4", 48_908,
    ),
    "walker2d-medium-v2": D4RLFile(
        "gym_mujoco_v2", "walker2d_medium-v2.hdf5", 232_254_996,
        "cf00f43add04c17fdfc2958dd581dea0851b2e5bedbe6fda073758a8f841aeda", "Walker2d-v4", 1_191,
    ),
    "walker2d-medium-replay-v2": D4RLFile(
        "gym_mujoco_v2", "walker2d_medium_replay-v2.hdf5", 86_323_963,
        "e75de96a4f77acf7d4e0d6fdf0d7ccb177c26c44bb4388e4fd99f543ccfa18db", "Walker2d-v4", 1_093,
    ),
    "walker2d-medium-expert-v2": D4RLFile(
        "gym_mujoco_v2", "walker2d_medium_expert-v2.hdf5", 462_197_079,
        "6b8d7f868c45bbaedf460be797fb7271b46dee6ebe45fe7a64319f2005b59a04", "Walker2d-v4", 2_191,
    ),
    "walker2d-expert-v2": D4RLFile(
        "gym_mujoco_v2", "walker2d_expert-v2.hdf5", 230_567_195,
        "2985dc3d436a8baa10e8f43f946fe1d7c6337a4e4fbc65def70618093b18c59a", "Walker2d-v4", 1_001,
    ),
    "walker2d-full-replay-v2": D4RLFile(
        "gym_mujoco_v2", "walker2d_full_replay-v2.hdf5", 285_115_514,
        "f2720f9d27b2acef6ec9a7d9ad3b80b6c2078ad4467cee668a81e3b3c80bcf2a", "Walker2d-v4", 1_888,
    ),
    "antmaze-umaze-v2": D4RLFile(
        "ant_maze_v2", "Ant_maze_u-maze_noisy_multistart_False_multigoal_False_sparse_fixed.hdf5", 232_532_949,
        "5ef15257771c50ef4d23c7de001750e96c8bb5d9b6a5e4a821dcfb3065fbd130", "itrpo/AntMaze_UMaze-v0", 10_154,
    ),
    "antmaze-umaze-diverse-v2": D4RLFile(
        "ant_maze_v2", "Ant_maze_u-maze_noisy_multistart_True_multigoal_True_sparse_fixed.hdf5", 230_854_272,
        "c771dd63963cd7d9f55f24a6d809064f6b82250a6aeac4c9d13f9a1d06e8c932", "itrpo/AntMaze_UMaze-v0", 1_036,
    ),
    "antmaze-medium-play-v2": D4RLFile(
        "ant_maze_v2", "Ant_maze_big-maze_noisy_multistart_True_multigoal_False_sparse_fixed.hdf5", 231_110_764,
        "c9fec1c1daad97c71d61bd47f4ccc9f74faa855b8a2d2e8107d5378018827e5b", "itrpo/AntMaze_Medium-v0", 10_768,
    ),
    "antmaze-medium-diverse-v2": D4RLFile(
        "ant_maze_v2", "Ant_maze_big-maze_noisy_multistart_True_multigoal_True_sparse_fixed.hdf5", 231_095_166,
        "ad9dcbac05d1f8744a7a216083f513662f43f64f28a4a5eb225e9811902dfae7", "itrpo/AntMaze_Medium-v0", 2_959,
    ),
    "antmaze-large-play-v2": D4RLFile(
        "ant_maze_v2", "Ant_maze_hardest-maze_noisy_multistart_True_multigoal_False_sparse_fixed.hdf5", 230_880_653,
        "6d353df2457829925d7f9d4b0215587469908bd57478ea76f16417cfa944f471", "itrpo/AntMaze_Large-v0", 13_517,
    ),
    "antmaze-large-diverse-v2": D4RLFile(
        "ant_maze_v2", "Ant_maze_hardest-maze_noisy_multistart_True_multigoal_True_sparse_fixed.hdf5", 231_183_710,
        "84f775eb7956ea9cc766704710dc520a8ab357adc7522ade47f556f0e335e284", "itrpo/AntMaze_Large-v0", 7_189,
    ),
}
# fmt: on
