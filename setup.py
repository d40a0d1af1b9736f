"""Packaging of Marquee. Apache Beam workers build and install this same file through `--setup_file=./setup.py`."""

from setuptools import find_packages, setup

# Two TFX lines are supported: 1.16 (Python 3.10) and 1.21 (Python 3.11 to 3.13). The ranges span both;
# constraints/ holds the exact versions of each.
REQUIREMENTS = [
    "absl-py>=1.4",
    "aiohttp>=3.9,<4",
    "apache-beam[gcp]>=2.60,<3",
    "dill>=0.3.1",  # tfx-bsl imports it without declaring it
    "google-crc32c>=1.5,<2",
    "grpcio>=1.48,<2",
    "grpcio-health-checking>=1.48,<2",
    "httpx>=0.27,<1",
    "jinja2>=3.1,<4",
    "keras-tuner>=1.4,<2",
    "ml-metadata>=1.16,<1.22",
    "ml-dtypes>=0.3",
    "numpy>=1.26,<3",
    "pip>=23",  # `marquee data` downloads with it
    "plotly>=6,<8",
    "protobuf>=3.20.3,<7",
    "pyarrow>=10,<19",
    "pydantic>=2.7,<3",
    "pyyaml>=6,<7",
    "rich>=13",
    "scikit-learn>=1.3",  # the Bayesian search of KerasTuner imports it without declaring it
    "setuptools<81",  # tensorflow-hub 0.15 imports pkg_resources, which setuptools 81 and later deprecate or lack
    "tensorflow>=2.16,<2.22",
    "tensorflow-data-validation>=1.16,<1.22",
    "tensorflow-metadata>=1.16,<1.22",
    "tensorflow-model-analysis>=0.47,<0.53",
    "tensorflow-recommenders>=0.7.7,<0.8",
    "tensorflow-serving-api>=2.16,<2.22",
    "tensorflow-transform>=1.16,<1.22",
    "tf-keras>=2.16,<2.22",  # TensorFlow Recommenders needs Keras 2
    "tfx>=1.16,<1.22",
    "tfx-bsl>=1.16,<1.22",
    "typer>=0.12",
    "uvloop>=0.19,<1",
]

EXTRAS = {
    "kubeflow": ["kfp>=2.5,<2.17"],
    # Approximate retrieval. Later wheels were built for other TensorFlow releases than those of the two lines.
    "scann": ["scann>=1.3.1,<1.3.3; python_version < '3.11'"],
    "dev": [
        "hypothesis>=6.100",
        "cryptography",  # certificates for the tests of TLS
        "jsonschema>=4.20",
        "kubernetes-validate>=1.34",  # carries Kubernetes' schemas
        "mypy>=1.10",
        "prometheus-client>=0.20",  # reads what the server writes, in tests
        "pytest>=8",
        "pytest-timeout>=2.3",
        "pytest-xdist>=3.6",
        "ruff>=0.6",
        "scipy>=1.11",
        "types-protobuf",
        "types-PyYAML",
    ],
}

setup(
    name="marquee",
    version="0.1.0",
    description="A production recommender pipeline on TensorFlow Extended",
    python_requires=">=3.10,<3.14",
    packages=find_packages(include=["pipeline", "pipeline.*", "modules", "modules.*", "schemas", "schemas.*"]),
    package_data={
        "pipeline": [
            "configs/*.yaml",
            "configs/studies/*.yaml",
            "configs/simulations/*.yaml",
            "pages/templates/*",
            "report/templates/*",
            "simulation/templates/*",
            "study/templates/*",
        ],
        "schemas": ["*/*.pbtxt"],
    },
    install_requires=REQUIREMENTS,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["marquee = pipeline.cli:main"]},
)
