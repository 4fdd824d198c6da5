"""The package for pip and for colcon (ament_python). Tool settings are in pyproject.toml."""

from pathlib import Path

from setuptools import find_packages
from setuptools import setup

PACKAGE = 'vpr_ros'
ROOT = Path(__file__).resolve().parent

# There are ROS 2 wheels for these only. Elsewhere the `ros` extra is empty rather than broken:
# a ROS 2 installation serves instead, and without one everything but the node works.
WITH_ROS_WHEELS = (
    'sys_platform == "linux" and platform_machine == "x86_64" '
    'and implementation_name == "cpython" and python_version < "3.14"'
)
ROS_WHEELS = [
    'ros-jazzy-rclpy[fastrtps]',
    'ros-jazzy-diagnostic-msgs',
    'ros-jazzy-geometry-msgs',
    'ros-jazzy-nav-msgs',
    'ros-jazzy-sensor-msgs',
    'ros-jazzy-std-msgs',
    'ros-jazzy-std-srvs',
    'cv-bridge',
    'opencv-python-headless<5',  # this cv-bridge misreads the type codes of OpenCV 5
]


def shared(folder: str, *patterns: str) -> tuple[str, list[str]]:
    """Return the data_files entry that keeps a folder under share/vpr_ros."""
    files = sorted(
        path.relative_to(ROOT).as_posix()
        for pattern in patterns
        for path in (ROOT / folder).glob(pattern)
        if path.is_file() and not path.name.startswith('.')
    )
    return f'share/{PACKAGE}/{folder}', files


setup(
    name=PACKAGE,
    version='0.2.0',
    description='Onboard visual localisation by visual place recognition, for ROS 2',
    long_description='Camera frames in, poses on a map with an honest confidence out.',
    author='The vpr_ros authors',
    maintainer='The vpr_ros authors',
    maintainer_email='maintainers@vpr-ros.example.org',
    license='Apache-2.0',
    keywords=['ROS', 'localization', 'visual place recognition'],
    packages=find_packages(include=[PACKAGE, f'{PACKAGE}.*']),
    data_files=[
        ('share/ament_index/resource_index/packages', [f'resource/{PACKAGE}']),
        (f'share/{PACKAGE}', ['package.xml']),
        shared('config', '*'),
        shared('launch', '*.launch.py'),
        shared('models', '*.onnx', '*.md'),
    ],
    python_requires='>=3.10',
    install_requires=[
        'numpy',
        'scipy',
        'opencv-python-headless',
        'faiss-cpu',
        'PyYAML',
        'tqdm',
        'rosbags',
    ],
    # One of `cpu`, `gpu` and `openvino`: three distributions of one module, never two together.
    extras_require={
        'cpu': ['onnxruntime'],
        'gpu': ['onnxruntime-gpu'],
        'openvino': ['onnxruntime-openvino>=1.23'],
        'ros': [f'{requirement}; {WITH_ROS_WHEELS}' for requirement in ROS_WHEELS],
        'train': [
            'torch',
            'torchvision',
            'lightning',
            'pytorch-metric-learning',
            'omegaconf',
            'tensorboard',
            'onnx',
            'onnxscript',
        ],
        'viz': ['matplotlib', 'scikit-learn', 'onnx'],
        'umap': ['umap-learn'],
        'test': [
            'playwright',
            'pytest',
            'pytest-timeout',
            'hypothesis',
            'onnx',
            'psutil',
            'catkin_pkg',
            'colcon-common-extensions',
        ],
        'dev': ['ruff', 'mypy', 'types-PyYAML', 'types-tqdm'],
    },
    entry_points={
        'console_scripts': [
            'vpr = vpr_ros.cli:main',
            'localizer = vpr_ros.ros.run:main',
        ],
    },
    package_data={PACKAGE: ['py.typed'], f'{PACKAGE}.offline': ['page/*']},
    zip_safe=True,
)
