"""The wheel carries kernels/, config/, workflow/ and the Snakefile under shapeflow/_data; a checkout has them beside the package."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SHIPPED = ("kernels", "config", "workflow", "Snakefile")


class BuildWithData(build_py):
    def run(self):
        super().run()
        if self.editable_mode:
            return  # shapeflow.resources finds the checkout's own folders
        target = Path(self.build_lib, "shapeflow", "_data")
        shutil.rmtree(target, ignore_errors=True)
        for name in SHIPPED:
            source = Path(name)
            if source.is_dir():
                shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__", "*.o", "*.so"))
            else:
                target.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target / name)


setup(cmdclass={"build_py": BuildWithData})
