"""Installation of scitq. The build folder of setuptools is moved: `build/` holds our scripts."""

from setuptools import find_namespace_packages, setup

setup(
    package_dir={"": "src"},
    packages=find_namespace_packages("src", include=["scitq*"]),
    package_data={"scitq": ["py.typed", "broker/store/migrations/*.sql"]},
    options={"build": {"build_base": "out/setuptools"}},
)
