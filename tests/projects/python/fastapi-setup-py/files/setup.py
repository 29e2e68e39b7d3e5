from setuptools import setup

setup(name="x", install_requires=["fastapi>=0.1", "uvicorn"])
