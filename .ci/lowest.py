"""Print the lowest versions that setup.cfg declares, as constraints for pip."""

import configparser
import re
from pathlib import Path

config = configparser.ConfigParser()
config.read(Path(__file__).parents[1] / "setup.cfg")
needed = config["options"]["install_requires"] + "".join(config["options.extras_require"].values())
for line in needed.splitlines():
    if found := re.fullmatch(r"([\w.-]+)(?:\[\w+\])?>=([\w.]+)", line.strip()):
        print("{}=={}".format(*found.groups()))
